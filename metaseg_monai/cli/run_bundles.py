"""The commands that run one bundle: train it, test it, look into it, use it."""

from pathlib import Path
from typing import Any

from metaseg_monai.cli.typed import as_typed

PATH_SETTINGS = ("output_dir", "dataset_dir", "schema_file", "columns_file", "ckpt_path")


@as_typed(*PATH_SETTINGS)
class RunBundles:
    """Run one bundle."""

    def train(self, bundle: str, configuration: Any = None, **overrides: Any) -> None:
        """Train one variant of a bundle.

        Example:
            python -m metaseg_monai train synthetic_shapes_segmentation --variant me --epochs 20 \
--output_dir runs/me

        Args:
            bundle: name under ./bundles, or a folder.
            configuration: further files of the bundle's configs/, as pilot or
                pilot,full_size, merged last in that order.
            overrides: any setting of the bundle's configs/train.json; misspelt ones are refused.
                --resume True goes on with an interrupted run.
        """
        from metaseg_monai.bundle.locate import resolve_bundle
        from metaseg_monai.bundle.run import configs_of, run_bundle

        run_bundle(resolve_bundle(bundle), configs_of("train", more=configuration), overrides)

    def evaluate(self, bundle: str, configuration: Any = None, **overrides: Any) -> str:
        """Test a trained variant in all test modes; write counts.csv and samples.npz.

        Example:
            python -m metaseg_monai evaluate synthetic_shapes_segmentation --variant me \
--output_dir runs/me

        Args:
            bundle: name under ./bundles, or a folder.
            configuration: that of the training, if it had one.
            overrides: any setting of train.json or evaluate.json, such as --split val or
                --modes '["normal","shuffle"]'.
        """
        from metaseg_monai.bundle.locate import resolve_bundle
        from metaseg_monai.bundle.run import configs_of, run_bundle

        configs = configs_of("train", "evaluate", more=configuration)
        run_bundle(resolve_bundle(bundle), configs, overrides)
        runs = Path(overrides["output_dir"]).parent if "output_dir" in overrides else "RUNS"
        return f"evaluated; python -m metaseg_monai report {runs} writes the tables"

    def explain(
        self, bundle: str, output_dir: str, configuration: Any = None, **overrides: Any
    ) -> str:
        """Draw what every gate of a trained model does for each metadata value.

        Example:
            python -m metaseg_monai explain synthetic_shapes_segmentation --variant me \
--output_dir runs/me

        Args:
            bundle: name under ./bundles, or a folder.
            output_dir: folder of the trained model; figures and gates.csv go to explain/ in it.
            configuration: that of the training, if it had one.
            overrides: settings of the training, and those of configs/explain.json, such as
                --explain_cases 20 or --explain_gate middle.
        """
        from metaseg_monai.bundle.locate import resolve_bundle
        from metaseg_monai.bundle.run import configs_of, run_bundle
        from metaseg_monai.explain.draw import draw

        configs = configs_of("train", "evaluate", "explain", more=configuration)
        run_bundle(resolve_bundle(bundle), configs, {**overrides, "output_dir": output_dir})
        return "\n".join(map(str, draw(output_dir)))

    def estimate(
        self, bundle: str, output_dir: str, configuration: Any = None, **overrides: Any
    ) -> str:
        """Learn to tell a continuous field, such as a size, from the image alone.

        Writes predicted.csv (for the test mode predicted) and estimate.json with its scores beside
        those of a constant.

        Example:
            python -m metaseg_monai estimate kits21_tumour_slices_segmentation \
--output_dir runs/size

        Args:
            bundle: name under ./bundles, or a folder.
            output_dir: folder for the estimates.
            configuration: further files of the bundle's configs/, as for train.
            overrides: any setting of train.json or estimate.json, such as --estimate_field NAME.
        """
        from metaseg_monai.bundle.locate import resolve_bundle
        from metaseg_monai.bundle.run import configs_of, run_bundle
        from metaseg_monai.evaluation.estimates import tell_estimate

        configs = configs_of("train", "estimate", more=configuration)
        run_bundle(resolve_bundle(bundle), configs, {**overrides, "output_dir": output_dir})
        return tell_estimate(output_dir)

    def predict(
        self,
        bundle: str,
        source: str,
        output: str,
        meta: Any = None,
        configuration: Any = None,
        **overrides: Any,
    ) -> str:
        """Segment a folder of images, one image, or the cases of a table.

        Example:
            python -m metaseg_monai predict synthetic_shapes_segmentation --source images \
--output masks --meta task=disc

        Args:
            bundle: name under ./bundles, or a folder.
            source: folder of images, KiTS cases or DICOM series; image file; or table.csv with the
                metadata of each case. Volumes are cut into axial slices and put together again.
            output: folder for the masks, apart from the images. Its list predicted.sha256 tells
                which files are masks of an earlier prediction; no other file is ever replaced.
            meta: field=value[,field=value] for all images (a value may be unknown), or a JSON or
                CSV file with a row a case; of KiTS cases their own kits.json by default.
            configuration: that of the training, if it had one.
            overrides: any setting of configs/inference.json, such as --ckpt_path FILE.
        """
        from metaseg_monai.sharing.predict import predict

        return f"masks: {predict(bundle, source, output, meta, overrides, configuration)}"
