"""Adversarial training of a network that gives images: MONAI's trainer, with its own iteration."""

from typing import Any

import torch
from monai.engines import AdversarialTrainer, IterationEvents
from monai.inferers import Inferer
from monai.utils.enums import AdversarialIterationEvents as Events
from monai.utils.enums import AdversarialKeys, CommonKeys
from torch import Tensor, nn
from torch.optim import Optimizer

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers import each_tensor
from metaseg_monai.networks.meta_input import reads_meta
from metaseg_monai.training import processes


class ConditionalAdversarialTrainer(AdversarialTrainer):
    """MONAI's AdversarialTrainer for a conditional discriminator and a relativistic loss.

    The discriminator sees the input and a fluorescence side by side, real or generated, and both
    losses compare the scores of both kinds (report, 4.2). It learns first, as in the reference of
    that loss (Kupyn et al. 2019) and the team's code, then the generator by its new scores:

        D: d_loss_function(scores of real ones, scores of generated ones)
        G: recon_loss_function(answer, label) + g_loss_function(real scores, generated scores)

    MONAI 1.6.1 gives the generator's loss the generated scores alone, and the discriminator the
    input instead of the label as what is real, unconditionally: all but its iteration is used here.
    Of an answer or label with several channels, or of several scales, the fluorescence is the first
    channel of the finest.

    For handlers it is as MONAI's SupervisedTrainer that trains the generator: it has `network`,
    `optimizer`, `inferer` and `loss_function`, and fires `IterationEvents` around the generator's
    step; the output's "loss" is all that the generator learns by. Arguments are those of MONAI's;
    scores and states are kept by `RunCheckpoint`, which must be given both networks and optimizers.
    """

    state: Any

    @property
    def network(self) -> nn.Module:
        """The generator."""
        return self.state.g_network

    @property
    def optimizer(self) -> Optimizer:
        """Of the generator."""
        return self.state.g_optimizer

    @property
    def inferer(self) -> Inferer:
        """Of the generator."""
        return self.g_inferer

    @property
    def loss_function(self) -> Any:
        """Of the reconstruction, which a generator alone would be trained by."""
        return self.state.recon_loss_function

    def _register_handlers(self, handlers: Any) -> None:
        """Know the events before handlers ask for them, which MONAI's learns of afterwards."""
        self.register_events(*Events)
        super()._register_handlers(handlers)

    def _complete_state_dict_user_keys(self) -> None:
        """Leave the networks out of Ignite's state, which would hold them as objects."""

    def _iteration(self, engine: Any, batchdata: Any) -> dict[str, Any]:
        """Train the discriminator, then the generator, on one batch.

        Raises:
            ConfigError: the run has several processes.
        """
        if processes.world_size() > 1:
            raise ConfigError(
                "adversarial training is of one process: the batches of several would be judged by "
                "scores of their own; start it without torchrun"
            )
        made = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        image, label, args, kwargs = made if len(made) == 4 else (*made, (), {})
        discriminator = engine.state.d_network
        out: dict[str, Any] = {}
        engine.state.output = out
        out[CommonKeys.IMAGE], out[CommonKeys.LABEL] = image, label
        out[AdversarialKeys.REALS] = label[:, :1]
        told = kwargs if reads_meta(processes.bare_network(discriminator)) else {}

        def score(fluorescence: Tensor) -> Tensor:
            seen = torch.cat([image, fluorescence.to(image.dtype)], dim=1)
            return engine.d_inferer(seen, discriminator, **told)

        engine.network.train()
        discriminator.train()
        out[CommonKeys.PRED] = engine.g_inferer(image, engine.network, *args, **kwargs)
        out[AdversarialKeys.FAKES] = each_tensor(out[CommonKeys.PRED])[0][:, :1]
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(Events.GENERATOR_FORWARD_COMPLETED)

        engine.state.d_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        real = score(out[AdversarialKeys.REALS])
        engine.fire_event(Events.DISCRIMINATOR_REALS_FORWARD_COMPLETED)
        fake = score(out[AdversarialKeys.FAKES].detach())
        engine.fire_event(Events.DISCRIMINATOR_FAKES_FORWARD_COMPLETED)
        loss = engine.state.d_loss_function(real, fake)
        out[AdversarialKeys.DISCRIMINATOR_LOSS] = loss
        engine.fire_event(Events.DISCRIMINATOR_LOSS_COMPLETED)
        loss.backward()
        engine.fire_event(Events.DISCRIMINATOR_BACKWARD_COMPLETED)
        engine.state.d_optimizer.step()
        engine.fire_event(Events.DISCRIMINATOR_MODEL_COMPLETED)

        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        discriminator.requires_grad_(False)  # it hands gradients on, and takes none
        try:
            with torch.no_grad():
                out[AdversarialKeys.REAL_LOGITS] = score(out[AdversarialKeys.REALS])
            out[AdversarialKeys.FAKE_LOGITS] = score(out[AdversarialKeys.FAKES])
            engine.fire_event(Events.GENERATOR_DISCRIMINATOR_FORWARD_COMPLETED)
            reconstruction = engine.loss_function(out[CommonKeys.PRED], label).mean()
            out[AdversarialKeys.RECONSTRUCTION_LOSS] = reconstruction
            engine.fire_event(Events.RECONSTRUCTION_LOSS_COMPLETED)
            adversarial = engine.state.g_loss_function(
                out[AdversarialKeys.REAL_LOGITS], out[AdversarialKeys.FAKE_LOGITS]
            )
            out[AdversarialKeys.GENERATOR_LOSS] = adversarial
            engine.fire_event(Events.GENERATOR_LOSS_COMPLETED)
            out[CommonKeys.LOSS] = reconstruction + adversarial
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
            out[CommonKeys.LOSS].backward()
        finally:
            discriminator.requires_grad_(True)
        engine.fire_event(Events.GENERATOR_BACKWARD_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.optimizer.step()
        engine.fire_event(Events.GENERATOR_MODEL_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return out
