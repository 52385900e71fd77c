"""What large images ask of the masks' writer: blocks of rows, and nothing kept behind a batch."""

import torch
from ignite.engine import Engine

from metaseg_monai.evaluation import masks


def test_classes_found_in_blocks_are_those_of_argmax(monkeypatch):
    torch.manual_seed(0)
    logits = torch.randn(3, 11, 7).round()  # with ties, where the first class wins
    for pixels in (1, 7, 15, 70, 1000):
        monkeypatch.setattr(masks, "PIXELS_AT_ONCE", pixels)
        assert (masks._classes(logits, None) == logits.argmax(0).numpy()).all()


def test_a_batch_and_its_output_are_let_go_before_the_next_is_read(tmp_path, monkeypatch):
    held = []

    def batches():
        for number in range(3):
            held.append((engine.state.batch, engine.state.output))
            yield number

    engine = Engine(lambda engine, batch: batch + 10)
    handler = masks.SaveMasks(tmp_path)
    handler.start = handler.finish = lambda engine: None
    monkeypatch.setattr(masks.SaveMasks, "__call__", lambda self, engine: None)
    handler.attach(engine)
    engine.run(batches(), epoch_length=3)
    assert held == [(None, None)] * 3
    assert engine.state.output == 12  # the last is still there for who asks at the end
