"""One refresh of the fifty audiences in a process of its own: prints its seconds. `python -m … PEOPLE EVENTS`"""

import os
import sys
import time


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command

    from audiences.people import engines, lake
    from audiences.people.engines.base import Pinned
    from audiences.segments import evaluate
    from tests.benchmarks import rules, shop

    made = shop.shop(int(sys.argv[1]), int(sys.argv[2]))
    call_command("migrate", verbosity=0)
    shop.enter(made)
    start = time.perf_counter()
    computed = evaluate.compute(rules.audiences(), Pinned(lake.take_snapshot(), shop.AS_OF), engines.current(), {})
    seconds = time.perf_counter() - start
    assert len(computed) == 50
    print(seconds)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    main()
