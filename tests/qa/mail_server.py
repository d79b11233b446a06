"""A real mail server in a process of its own: keeps each mail as a file, and does as files beside them say.

`later`: answer 451 to every mail. `refuse`: answer 550 to every recipient. `cut`: take the mail and hang up before saying so.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

FOLDER = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
PASSWORD = b"s3cret/with:signs"


class Keeper:
    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if (FOLDER / "refuse").exists():
            return f"550 no such user {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        (FOLDER / "attempts").open("a").write("x")
        if (FOLDER / "later").exists():
            return f"451 come back later, {envelope.rcpt_tos[0]}"
        number = len(list(FOLDER.glob("*.eml")))
        scratch = FOLDER / f"{number:04}.part"
        scratch.write_bytes(envelope.content)
        scratch.rename(scratch.with_suffix(".eml"))
        if (FOLDER / "cut").exists():
            (FOLDER / "cut").unlink()
            server.transport.abort()
        return "250 taken"


def who(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.login == b"rollcall" and data.password == PASSWORD, handled=False)


async def serve(port: int, *, wants_password: bool) -> None:
    def protocol() -> SMTP:
        return SMTP(
            Keeper(), hostname="mail.test", enable_SMTPUTF8=True, authenticator=who if wants_password else None,
            auth_required=wants_password, auth_require_tls=False,
        )  # fmt: skip

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
    (FOLDER / "port").write_text(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), wants_password="--password" in sys.argv))
