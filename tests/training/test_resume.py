"""An interrupted run goes on, and ends as an undisturbed one."""

import pytest

from divco_tf import files
from tests.training import runs


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("moment", [2, 5, 9])
def test_a_run_interrupted_in_a_rename_ends_as_an_undisturbed_one(tmp_path, monkeypatch, moment):
    described = runs.experiment(held_out=0.2)
    runs.run(tmp_path / "whole", described)
    calls = 0

    def dying(call):
        def counted(*arguments):
            nonlocal calls
            calls += 1
            if calls == moment:
                raise Killed
            return call(*arguments)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "rename", dying(files.os.rename))
        patch.setattr(files.os, "replace", dying(files.os.replace))
        with pytest.raises(Killed):
            runs.run(tmp_path / "killed", described)
    runs.assert_nothing_is_half_written(tmp_path / "killed")
    runs.run(tmp_path / "killed", described)
    runs.assert_same_run(tmp_path / "whole", tmp_path / "killed")
