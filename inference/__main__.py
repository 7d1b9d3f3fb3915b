"""The research side on the command line: `python -m inference --help`."""

from __future__ import annotations

import click

from inference.cli_cohort import prepare, table
from inference.cli_evaluate import evaluate_command
from inference.cli_experiment import reproduce
from inference.cli_export import export
from inference.cli_phantom_study import phantom_parity, phantom_protocol, phantom_residuals
from inference.cli_predict import benchmark, phantom, predict
from inference.cli_saliency import saliency_check_command
from inference.cli_training import cohort, finetune_command, pretrain_command


@click.group()
def main() -> None:
    """Phantoms, training, evaluation and prediction of temporal brain-MRI models. Research use only."""


for _command in (
    phantom,
    table,
    prepare,
    cohort,
    pretrain_command,
    finetune_command,
    evaluate_command,
    export,
    reproduce,
    predict,
    benchmark,
    saliency_check_command,
    phantom_protocol,
    phantom_residuals,
    phantom_parity,
):
    main.add_command(_command)

if __name__ == "__main__":
    main(prog_name="python -m inference")
