"""What tests on a cluster do if it lacks something."""

import pytest

from tests.support import kube


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_missing_operator_fails_only_where_required(
    monkeypatch: pytest.MonkeyPatch, required: str, outcome: type[BaseException]
) -> None:
    def kubectl(*arguments: str) -> str:
        raise kube.CommandFailed(" ".join(arguments))

    monkeypatch.setattr(kube, "kubectl", kubectl)
    monkeypatch.setenv("REQUIRE_CNPG", required)
    with pytest.raises(outcome):
        kube.require_cnpg()
