"""cloudformation.yaml as CloudFormation reads it: resolved for the values of its parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml

ROOT = Path(__file__).parents[2]
TEMPLATE: dict[str, Any] = cfn_yaml.load(str(ROOT / "cloudformation.yaml"))
PARAMETERS: dict[str, Any] = TEMPLATE["Parameters"]
REQUIRED = {"ClickHouseHost": "your-host", "ClickHousePassword": "your-password"}
END = "0123456789ab"
"""The end of the stack's id, with which the name of its bucket ends."""

_PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "s",
    "AWS::StackId": f"arn:aws:cloudformation:us-east-1:123456789012:stack/s/0-0-0-0-{END}",
}
_NOTHING = object()
"""AWS::NoValue: the property or list item that has it is left out."""


class Stack:
    """The template with these parameters, and the defaults of the others.

    A resource stands for its own Ref, and `Name.Attribute` for its attributes.
    """

    def __init__(self, **parameters: str) -> None:
        assert parameters.keys() <= PARAMETERS.keys()
        self.values: dict[str, Any] = dict(_PSEUDO)
        for name, parameter in PARAMETERS.items():
            value = parameters.get(name, REQUIRED.get(name, parameter.get("Default")))
            is_list = parameter["Type"] == "CommaDelimitedList"
            self.values[name] = value.split(",") if is_list else value

    def condition(self, name: str) -> bool:
        """Whether a condition of the template holds."""
        return bool(self.resolve(TEMPLATE["Conditions"][name]))

    def resources(self, kind: str = "") -> dict[str, Any]:
        """Properties of the resources that the stack creates, by name."""
        return {
            name: self.resolve(resource["Properties"])
            for name, resource in TEMPLATE["Resources"].items()
            if kind in ("", resource["Type"])
            and ("Condition" not in resource or self.condition(resource["Condition"]))
        }

    def __getitem__(self, name: str) -> Any:
        """Properties of one resource."""
        return self.resources()[name]

    def outputs(self) -> dict[str, Any]:
        """Values of the outputs that the stack has."""
        return {
            name: self.resolve(output["Value"])
            for name, output in TEMPLATE["Outputs"].items()
            if "Condition" not in output or self.condition(output["Condition"])
        }

    def refusals(self) -> list[str]:
        """What CloudFormation answers to these parameters, because of the template's rules."""
        return [
            assertion["AssertDescription"]
            for rule in TEMPLATE["Rules"].values()
            if self.resolve(rule.get("RuleCondition", {"Fn::Equals": ["", ""]}))
            for assertion in rule["Assertions"]
            if not self.resolve(assertion["Assert"])
        ]

    def resolve(self, value: Any) -> Any:
        """Part of the template with its functions evaluated."""
        if isinstance(value, list):
            items = [self.resolve(item) for item in value]
            return [item for item in items if item is not _NOTHING]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self._named(argument)
            if function == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if function.startswith("Fn::"):
                return self._call(function[4:], argument)
        resolved = {name: self.resolve(item) for name, item in value.items()}
        return {name: item for name, item in resolved.items() if item is not _NOTHING}

    def _named(self, name: str, more: Mapping[str, Any] | None = None) -> Any:
        if name == "AWS::NoValue":
            return _NOTHING
        known = {**self.values, **(more or {})}
        assert name in known or name.partition(".")[0] in TEMPLATE["Resources"], name
        return known.get(name, name)

    def _call(self, function: str, argument: Any) -> Any:
        if function == "If":
            condition, yes, no = argument
            return self.resolve(yes if self.condition(condition) else no)
        if function == "Sub":
            text, more = argument if isinstance(argument, list) else (argument, {})
            names = self.resolve(more)
            return re.sub(r"\$\{([\w:.]+)\}", lambda m: str(self._named(m[1], names)), text)
        if function == "GetAtt":
            return self._named(argument if isinstance(argument, str) else ".".join(argument))
        values = self.resolve(argument)
        evaluate: dict[str, Callable[[], Any]] = {
            "Equals": lambda: values[0] == values[1],
            "Not": lambda: not values[0],
            "And": lambda: all(values),
            "Or": lambda: any(values),
            "EachMemberEquals": lambda: all(value == values[1] for value in values[0]),
            "Join": lambda: values[0].join(values[1]),
            "Split": lambda: values[1].split(values[0]),
            "Select": lambda: values[1][int(values[0])],
            "FindInMap": lambda: TEMPLATE["Mappings"][values[0]][values[1]][values[2]],
        }
        return evaluate[function]()
