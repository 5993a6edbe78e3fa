"""What divco-advise tells before it trains."""


def test_a_run_of_few_steps_is_told(divco, tmp_path):
    result = divco("advise", "--dataset=digits", "--minutes=9999", "--set=epochs=1", "--dry_run", f"--out={tmp_path}")
    assert result.status == 0 and "a run is 20 steps, which teach little" in result.stdout
