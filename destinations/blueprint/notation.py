"""JSON and YAML text to plain data: objects, lists, texts, whole numbers, exact decimals, true, false, null. What it means is entries.py's."""

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml

from audiences.segments.lint import Finding
from audiences.vocabulary import Problem


@dataclass(frozen=True, slots=True)
class Advice:
    """What is doubtful about an audience's rule. It stops nothing."""

    audience: str
    finding: Finding


class BlueprintRefused(Exception):
    """Nothing was written. `problems` is everything that is wrong; `advice`, what is doubtful besides."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.advice: tuple[Advice, ...] = ()


def load_json(text: str) -> Any:
    """Plain data, with decimals exact. Raises BlueprintRefused, for a key that stands twice, too."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise BlueprintRefused(Problem("", f'the key "{twice[:80]}" stands twice in one object'))
        return made

    def no_number(text: str) -> Any:
        raise BlueprintRefused(Problem("", f"{text} is not a number that JSON knows"))

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=Decimal, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise BlueprintRefused(
            Problem("", f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}")
        ) from None
    except RecursionError:
        raise BlueprintRefused(Problem("", "is nested too deep")) from None
    except ValueError:
        raise BlueprintRefused(Problem("", "holds a number with too many digits")) from None


class Loader(yaml.SafeLoader):
    """YAML as version 1.2 reads it: `no` is the country Norway, 00042 and 1998-07-01 are text. No aliases: they can blow a file up."""

    yaml_implicit_resolvers = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise BlueprintRefused(Problem("", f"line {mark.line + 1}: aliases (*name) are not read; write it out"))
        return super().compose_node(parent, index)


for _tag, _form, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?|[eE][-+]?[0-9]{1,3})", "-0123456789"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), list(_first))


def load_yaml(text: str) -> Any:
    """Plain data, with decimals exact. Raises BlueprintRefused with the line, for a key that stands twice, too."""
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        return None if node is None else _plain(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BlueprintRefused(Problem("", f"not YAML{where}: {error.problem}")) from None
    except yaml.YAMLError as error:
        raise BlueprintRefused(Problem("", f"not YAML: {str(error).splitlines()[0]}")) from None
    except RecursionError:
        raise BlueprintRefused(Problem("", "is nested too deep")) from None


def _plain(node: yaml.Node) -> Any:
    line = node.start_mark.line + 1
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "map":
            made: dict[str, Any] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise BlueprintRefused(Problem("", f"line {key_node.start_mark.line + 1}: a key must be a text"))
                if key_node.value in made:
                    where = key_node.start_mark.line + 1
                    raise BlueprintRefused(Problem("", f'line {where}: the key "{key_node.value[:80]}" stands twice'))
                made[key_node.value] = _plain(value_node)
            return made
        case "seq":
            return [_plain(item) for item in node.value]
        case "str":
            return node.value
        case "bool":
            return node.value == "true"
        case "null":
            return None
        case "int" if len(node.value) <= 1_000:
            return int(node.value)
        case "float" if len(node.value) <= 1_000:
            return Decimal(node.value)
        case "int" | "float":
            raise BlueprintRefused(Problem("", f"line {line}: a number with too many digits"))
        case other:
            raise BlueprintRefused(Problem("", f"line {line}: the tag {other[:40]} is not read here"))
