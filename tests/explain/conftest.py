"""A network so small that what its gates give is known without computing."""

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from metaseg_monai.evaluation import PerCase
from metaseg_monai.networks import ChannelGate


class Echo(ChannelGate):
    """Scale = metadata, shift = twice the metadata; made of no modules at all."""

    reads_image = False
    reads_meta = True

    def __init__(self, channels=3):
        super().__init__(channels)

    def excite(self, z, meta):
        return meta, 2 * meta


class EchoNetwork(nn.Module):
    """Channels k = 1, 2, 3 times the image, through one gate."""

    def __init__(self):
        super().__init__()
        self.echo = Echo()

    def forward(self, image, meta):
        return self.echo(torch.cat([image, 2 * image, 3 * image], dim=1), meta)


@pytest.fixture
def echo():
    return EchoNetwork()


@pytest.fixture
def evaluate(bind):
    """Run cases (case, mode, domain, image, meta) through a recorder, and write the measures."""

    def run(network, recorder, measures, cases):
        def step(engine, batch):
            image, meta = batch["image"], batch["meta"]
            with torch.no_grad():
                given = () if meta is None else (meta,)
                return {"pred": recorder(image, network, *given)}

        engine = Engine(step)
        for path, measure in measures.items():
            PerCase(path, measure).attach(engine)
        engine.run(
            [
                {"case": [case], "mode": [mode], "domain": [domain], "image": image, "meta": meta}
                for case, mode, domain, image, meta in cases
            ]
        )
        for path in measures:
            bind(path.parent, names=[one.name for one in measures])

    return run
