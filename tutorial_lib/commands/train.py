"""``python -m tutorial_lib train``: train a study's classifier, or go on with it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tutorial_lib.commands.options import add_command, natural
from tutorial_lib.progress import sparing

__all__ = ["register"]


def register(subparsers: Any) -> None:
    """Add the command ``train``."""
    command = add_command(
        subparsers,
        "train",
        run,
        help="train a study's classifier and keep it",
        description="Train a classifier and keep it in the cache, where every chapter and experiment finds it. "
        "Stop it when you like; the same command goes on.",
    )
    command.add_argument("study", help="digits, mnist, cifar10, svhn; or unique, the sparse autoencoder of chapter 15")
    command.add_argument("--network", help="lenet, resnet20, resnet18, ... (default: the study's own)")
    command.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of weights, order and augmentation (default 0)"
    )
    command.add_argument("--ship", action="store_true", help="put it among the weights that come with the library, too")


def run(arguments: argparse.Namespace) -> int:
    """Do what ``python -m tutorial_lib train`` was asked to."""
    if arguments.study == "unique":
        return _sparse_autoencoder(arguments)
    from tutorial_lib.studies import load_study
    from tutorial_lib.training.classifier import accuracy
    from tutorial_lib.training.trained import ship, shipped_file

    try:
        study = load_study(arguments.study)
        network = arguments.network or study.network
        with sparing():
            model = study.classifier(network, arguments.seed, progress=True)
    except ValueError as error:
        arguments.error(str(error))
    found = f"{network} on {study.name}, seed {arguments.seed}: test accuracy {accuracy(model, study.test):.4f}"
    if arguments.ship:
        shipped = shipped_file(study, network, arguments.seed)
        if shipped.exists():
            print(found)
            print(f"{shipped} is there already; delete it to ship another", file=sys.stderr)
            return 1
        command = f"python -m tutorial_lib train {study.name} --network {network} --seed {arguments.seed} --ship"
        print(f"wrote {ship(study, network, arguments.seed, command)}", file=sys.stderr)
    print(found)
    return 0


def _sparse_autoencoder(arguments: argparse.Namespace) -> int:
    from tutorial_lib.data.errors import DataUnavailable
    from tutorial_lib.training.sparse_autoencoder import ship, shipped_file, sparse_autoencoder

    if arguments.network:
        arguments.error("unique has one network only; leave --network out")
    there = shipped_file(arguments.seed)
    if there.exists():
        print(f"{there} is there already; delete it to train and ship another", file=sys.stderr)
        return 1 if arguments.ship else 0
    try:
        with sparing():
            if arguments.ship:
                print(f"wrote {ship(arguments.seed, progress=True)}")
            else:
                trained = sparse_autoencoder(arguments.seed, progress=True)
                print(
                    f"sparse autoencoder, seed {arguments.seed}: {len(trained.encoder_bias)} units, kept in the cache"
                )
    except DataUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0
