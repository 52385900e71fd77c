"""The commands of the project; those that make data or run a bundle are in files of their own."""

from typing import Any

from metaseg_monai.cli.generate import Generate
from metaseg_monai.cli.prepare import Prepare
from metaseg_monai.cli.run_bundles import RunBundles
from metaseg_monai.cli.typed import as_typed


@as_typed()
class Commands(RunBundles):
    """Segmentation steered by metadata. COMMAND --help shows the arguments and an example."""

    def __init__(self) -> None:
        self.generate = Generate()
        self.prepare = Prepare()

    def demo(
        self,
        output: str = "runs/demo",
        variants: str = "se,me,sme,film",
        seed: int = 0,
        **overrides: Any,
    ) -> str:
        """Generate synthetic shapes, train and test the variants, and write a report.

        Example:
            python -m metaseg_monai demo --output runs/demo

        Args:
            output: folder for the runs and the report; the data go into the bundle's folder.
            variants: comma-separated variants to train.
            seed: of the training; the data always have seed 0.
            overrides: settings of the bundle, such as --epochs 2.
        """
        from metaseg_monai.sharing.study import make_study
        from metaseg_monai.study.run import run_study

        study = make_study("synthetic_shapes_segmentation", variants, [seed], overrides)
        return f"report: {run_study(study, output)}"

    def check(
        self,
        table: str,
        schema_file: str,
        columns_file: str | None = None,
        classes: int = 2,
        channel_conversion: str = "stored",
    ) -> str:
        """Read every file of a table and report all problems before any training.

        Example:
            python -m metaseg_monai check shapes/table.csv --schema_file schema.json

        Args:
            table: table.csv or the folder that holds it.
            schema_file: JSON file of the metadata fields.
            columns_file: JSON file of a column map, for tables with other column names.
            classes: number of label classes with the background.
            channel_conversion: stored | grey | rgb, as in training.
        """
        from metaseg_monai.sharing.check import check

        return check(table, schema_file, columns_file, classes, channel_conversion)

    def fit_schema(
        self, table: str, fields: str, output: str, missing: str = "error", split: str = "split"
    ) -> str:
        """Propose a metadata schema from the training rows of a table and write it as JSON.

        Example:
            python -m metaseg_monai fit-schema table.csv --fields line,size_mm:continuous:mm \
--output schema.json

        Args:
            table: CSV file with one column for each field.
            fields: comma-separated column[:kind[:unit]]; kind is categorical, multi-label, ordinal
                or continuous.
            output: JSON file to write; an existing file is not overwritten.
            missing: error | unknown, what a missing value means.
            split: column of train / val / test, if there is one.
        """
        from metaseg_monai.metadata.fit import fit_schema
        from metaseg_monai.sharing.predict import names

        schema = fit_schema(table, names(fields), output, missing=missing, split_column=split)
        return f"{output}: {', '.join(schema.entry_names)}. Check the ranges before you train."

    def score(self, predictions: str, labels: str, output: str) -> str:
        """Score predicted kidney volumes against labels as the KiTS challenge does.

        Example:
            python -m metaseg_monai score --predictions masks --labels kits21/data --output scores

        Args:
            predictions: folder of NIfTI masks as predict writes them, or one.
            labels: folder of NIfTI labels or of a KiTS download, or one.
            output: folder for volumes.csv: Dice, surface Dice, HD95, volumes and lesions of each
                case and region, in the geometry of the files.
        """
        from metaseg_monai.sharing.score import score

        return score(predictions, labels, output)

    def study(
        self,
        target: str,
        variants: str | None = None,
        seeds: Any = None,
        output: str | None = None,
        workers: int | None = None,
        threads: int | None = None,
        cluster: str | None = None,
        cluster_settings: dict[str, Any] | None = None,
        tracking: str | None = None,
        **overrides: Any,
    ) -> str:
        """Run variants x seeds of a bundle, go on where it stopped, and report with tests.

        Example:
            python -m metaseg_monai study synthetic_shapes_segmentation \
--variants none,se,me,sme,sme-dummy,film,film-dummy,experts --seeds 3 --output runs/shapes

        Args:
            target: JSON file of a study, or name or folder of a bundle.
            variants: none, se, me, sme, film, film-ivadomed; those that take metadata also with
                -dummy; experts (one SE network a domain, equal epochs), experts-steps (equal
                steps). Only for a bundle.
            seeds: how many training seeds, or which, as 4,7.
            output: folder of the study, by default runs/<name>; a finished run in it is kept.
            workers: runs beside each other; by default one for each GPU or group of cores.
            threads: cores of a run.
            cluster: slurm submits the runs as jobs (pip install "metaseg-monai[slurm]").
            cluster_settings: of the jobs, as '{"timeout_min": 60, "slurm_partition": "gpu"}'.
            tracking: MLflow store, as sqlite:///runs/mlflow.db
                (pip install "metaseg-monai[tracking]").
            overrides: settings of the bundle for all runs.
        """
        from metaseg_monai.sharing.study import make_study
        from metaseg_monai.study.run import run_study

        made = make_study(target, variants, seeds, overrides)
        folder = output or f"runs/{made.name.lower().replace(' ', '_')}"
        page = run_study(made, folder, workers, threads, cluster, cluster_settings, tracking)
        return f"report: {page}"

    def report(self, runs: str, output: str | None = None, title: str | None = None) -> str:
        """Recompute tables, tests, figures and the report from the files of finished runs.

        Example:
            python -m metaseg_monai report runs/shapes

        Args:
            runs: folder of a study, or a folder with one folder for each evaluated model.
            output: where the report goes; by default the same folder.
            title: heading of the report; by default the study's name.
        """
        from metaseg_monai.reporting.write import write_report

        return f"report: {write_report(runs, output, title)}"
