import pytest
import torch
import transformers

HEADS = ("causal", "classifier", "tokens")


def same(found, expected, predictions):
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=0, atol=1e-5)
    if predictions:
        torch.testing.assert_close(found["predictions"], expected["predictions"], rtol=0, atol=1e-5)
        assert found.get("test_loss") == pytest.approx(expected.get("test_loss"), abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_resume(launch, tmp_path):
    """At equal global batch with gradient accumulation: the stock Trainer with DDP, and with sharded sequences."""
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        launch("train.py", processes, folder)
        found[processes] = torch.load(folder / "results.pt", weights_only=True)
    one, two = found[1], found[2]
    for head in HEADS:
        assert one[f"{head}, context 1"]["losses"][0] != one[f"{head}, context 1"]["losses"][-1]
        # Across processes the Trainer pads predictions, and repeats rows that do not divide.
        same(two[f"{head}, context 1"], one[f"{head}, context 1"], predictions=False)
        same(two[f"{head}, context 2"], one[f"{head}, context 1"], predictions=True)
    for stream in ("datasets stream", "our stream"):
        found, expected = two[f"{stream}, context 2"], one[f"{stream}, context 1"]
        if stream == "datasets stream":  # has no length: the Trainer counts its last batch as a full one
            del found["test_loss"], expected["test_loss"]
        same(found, expected, predictions=True)
    for results in (one, two):
        for name in [name for name in results if name.endswith(", resumed")]:
            same(results[name], results[name.removesuffix(", resumed")], predictions=True)
    if not transformers.__version__.startswith("4."):
        assert "tokens, context 2, resumed" in two
