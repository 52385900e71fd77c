"""Which metadata reach the gates: those given, the unknown vector, or none; all else is refused."""

import inspect

import torch
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import MetadataSchema


def required_meta(
    meta: Tensor | None,
    images: int,
    width: int,
    no_unknown: str = "a gate by itself never has",
) -> Tensor:
    """Return `meta` (B, M) once its batch B and width M are those of the images and the model.

    With a width of 0, it must be None, and an empty (B, 0) comes back. `no_unknown` says why None
    does not stand for unknown metadata.

    Raises:
        ValueError: `meta` is missing, not wanted, or of another shape. Nothing is broadcast.

    >>> required_meta(torch.zeros(1, 3), images=4, width=3)
    Traceback (most recent call last):
    ...
    ValueError: expected meta of shape (4, 3), one row for each image, got (1, 3)
    """
    if width == 0:
        if meta is not None:
            raise ValueError(
                "this network takes no metadata (meta_features=0) but meta was given: leave it "
                "out, or train a variant that reads it (me, sme, film)"
            )
        return torch.empty((images, 0))
    if meta is None:
        raise ValueError(
            f"this network reads metadata of width {width}: pass meta of shape ({images}, {width})"
            f"; meta=None is accepted only with an unknown vector, which {no_unknown}"
        )
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return meta  # sizes are symbols while tracing and cannot be compared
    if meta.dim() != 2 or meta.shape[0] != images or meta.shape[1] != width:
        came = ", ".join([str(size) for size in meta.shape])
        raise ValueError(
            f"expected meta of shape ({images}, {width}), one row for each image, got ({came})"
        )
    return meta


def reads_meta(network: nn.Module) -> bool:
    """Whether a network is to be given metadata.

    Told by its `meta_features`, or without that attribute by an argument `meta` of its forward.
    """
    features = getattr(network, "meta_features", None)
    if features is None:
        features = "meta" in inspect.signature(network.forward).parameters
    return bool(features)


class MetaInput(nn.Module):
    """The door through which metadata enter a network, checked once for all its gates.

    Args:
        schema: the model's schema, which gives the width and the unknown vector.
        meta_features: without a schema: M, the number of entries; 0 for a network without metadata.
        unknown_trained: with a schema: training showed the network unknown metadata (metadata
            dropout). Only then, and only if every field of the schema has missing="unknown", None
            stands for unknown; else it is refused.

    Raises:
        ConfigError: a setting does not go with another.
    """

    unknown: Tensor | None

    def __init__(
        self,
        schema: MetadataSchema | None = None,
        meta_features: int | None = None,
        unknown_trained: bool = False,
    ) -> None:
        super().__init__()
        if schema is not None and not isinstance(schema, MetadataSchema):
            raise ConfigError(
                f"schema is to be a MetadataSchema, got {schema!r}: give MetadataSchema.load(FILE)"
            )
        if schema is None and unknown_trained:
            raise ConfigError("unknown_trained needs the schema")
        if schema is not None and meta_features is not None:
            raise ConfigError(
                "meta_features is for a network without a schema, and this one has a schema, which "
                "gives the width: leave it out"
            )
        unknown = None
        if schema is None:
            self.no_unknown = "this network was built without (it has no schema)"
        elif not schema.knows_unknown:
            needed = [repr(field.name) for field in schema.fields if field.missing != "unknown"]
            self.no_unknown = f"the schema lacks (missing='error' in {', '.join(needed)})"
        elif not unknown_trained:
            self.no_unknown = "this network never saw in training (no metadata dropout, or a dummy)"
        else:
            self.no_unknown = ""
            unknown = torch.from_numpy(schema.unknown())
        self.meta_features = (meta_features or 0) if schema is None else schema.width
        self.register_buffer("unknown", unknown, persistent=False)

    def grow(self, schema: MetadataSchema) -> None:
        """Let metadata of a schema with further values in; what unknown is, it says anew."""
        self.meta_features = schema.width
        if self.unknown is not None:
            known = schema.knows_unknown
            self.unknown = torch.from_numpy(schema.unknown()).to(self.unknown) if known else None
            self.no_unknown = "" if known else "a field lacks that the network has grown by"

    def forward(self, meta: Tensor | None, image: Tensor) -> Tensor | None:
        """Return the metadata (B, M) for images (B, C, *S); None where the network reads none.

        Raises:
            ValueError: `meta` is missing, not wanted, or of another shape than (B, M); or it is
                left out of a trace or export, which would then read no metadata ever after.
        """
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            if meta is not None and not isinstance(meta, Tensor):
                raise ValueError(
                    f"expected meta as a tensor ({image.shape[0]}, {self.meta_features}), got a "
                    f"{type(meta).__name__}: give torch.as_tensor(meta)"
                )
            recording = torch.jit.is_tracing() or torch.compiler.is_exporting()  # type: ignore[attr-defined]
            if meta is None and self.meta_features > 0 and recording:
                raise ValueError(
                    "a trace or export without meta would be a network that reads no metadata: "
                    f"give both inputs, image and meta (B, {self.meta_features}), such as "
                    "convert_to_onnx(network, [image, meta], input_names=['image', 'meta']), or "
                    "script the network (ckpt_export without --use_trace), which keeps both"
                )
        unknown = self.unknown
        if meta is None and unknown is not None:
            return unknown.expand(image.shape[0], self.meta_features)
        entries = required_meta(meta, image.shape[0], self.meta_features, self.no_unknown)
        return entries if self.meta_features > 0 else None
