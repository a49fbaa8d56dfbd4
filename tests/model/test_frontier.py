"""The model holds with all of its rules, and without any one of them it does not."""

import pytest

from .frontier import RULES, Run, Violation


def test_holds() -> None:
    for seed in range(300):
        Run(seed).run()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed(rule: str) -> None:
    def breaks(seed: int) -> bool:
        try:
            Run(seed, {rule}).run()
        except (Violation, KeyError):
            return True
        return False

    assert any(breaks(seed) for seed in range(300)), RULES[rule]
