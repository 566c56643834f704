"""Names for readers."""

from __future__ import annotations

from bearray.baselines.registry import BASELINES
from bearray.method_names import NAMES, method_name
from bearray.objectives import OBJECTIVES


def test_every_method_has_a_name() -> None:
    names = {name.replace("-", "_") for name in (*OBJECTIVES, *BASELINES)} | {"d3"}
    assert names == set(NAMES)
    assert len(set(NAMES.values())) == len(NAMES)


def test_the_inverse_propensity_form_is_called_so() -> None:
    assert method_name("d2lr") == method_name("D2LR") == "D2LR-IPS"


def test_a_label_of_a_users_own_stays() -> None:
    assert method_name("HINGE") == "HINGE" and method_name("My-SFT") == "My-SFT"
