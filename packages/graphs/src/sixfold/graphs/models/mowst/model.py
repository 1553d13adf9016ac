"""Mowst: a weak expert, which looks at a node alone, and a strong one, which looks around it.

H. Zeng, H. Lyu, D. Hu, Y. Xia, J. Luo, "Mixture of Weak & Strong Experts on Graphs", ICLR 2024.
arXiv:2311.05185

A gate turns the dispersion of the weak expert's answer into the confidence C that it is right; the
node is left to the weak expert with probability C (Mowst, trained in turns), or the logits are
mixed, C z1 + (1 - C) z2 (Mowst*, trained jointly). With more experts, weakest first, the shares are
C1, (1 - C1) C2, and so on. With a single expert it is that expert: the paper's baselines.

The official code departs from the paper in ways that are mended here: `MowstConfig.quirks`.
`sixfold.graphs.models.mowst.early_exit` leaves the strong expert out where the weak one is
confident.
"""

from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sixfold.core import System, from_pretrained
from sixfold.graphs.data.validate import (
    Data,
    adopt_sizes,
    check_graph,
    check_labels,
    check_sizes,
    check_type,
    chosen,
    fingerprint,
    labels_of,
    settle,
)
from sixfold.graphs.layers.features import Features
from sixfold.graphs.layers.message_passing import Topology
from sixfold.graphs.models.mowst.config import MowstConfig
from sixfold.graphs.models.mowst.convert import convert
from sixfold.graphs.models.mowst.experts import Foreign, MakeStrong, make_expert
from sixfold.graphs.models.mowst.gates import Answers, Gate, HyperGate, dispersion, mixture
from sixfold.graphs.models.mowst.official_behaviour import flattened, sampled_accuracy
from sixfold.graphs.models.mowst.training import MowstTraining
from sixfold.graphs.models.stages import Row, open_run, train


class Mowst(nn.Module):
    """Learn the classes of nodes with experts of growing strength: ``Mowst(layers=2).fit(data)``.

    Args:
        config: Or its fields by name, as in ``Mowst(experts=("mlp", "sage"))``.
        strong: In the place of the last expert: a module of PyG's manner, from (x, edge_index) to
            logits, or what makes one from the numbers of features and classes. Checkpoints cannot
            name it: build it again, and give its weights to ``load_state_dict``.

    Raises:
        UserError: a setting is unknown or does not fit.
    """

    def __init__(
        self,
        config: MowstConfig | None = None,
        strong: nn.Module | MakeStrong | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.config = settle(MowstConfig, config, settings, "Mowst")
        self._strong = strong
        self.history: list[Row] = []
        self._build()

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Mowst":
        """Load an official or a sixfold checkpoint, in eval mode.

        Raises:
            UserError: the file is missing, damaged, or another system's.
        """
        return cast(Mowst, from_pretrained(path, SYSTEM))

    def fit(self, data: Data, *, folder: str | Path | None = None) -> "Mowst":
        """Train, from the weights that are there, on the device where model and data are.

        ``history`` then holds a row for every optimiser step.

        Args:
            data: With ``y``, ``train_mask`` and ``val_mask``.
            folder: A run folder. Fitting again into it goes on where it was killed.

        Raises:
            UserError: the graph cannot be learnt on; the message says why.
        """
        check_graph(data)
        check_type(data.x, self)
        given = self.config.classes if "classes" in self.config.model_fields_set else None
        classes = check_labels(data, ["train_mask", "val_mask"], given)
        self._adopt({"features": data.x.shape[1], "classes": classes})
        with open_run(folder, self.config, lambda: fingerprint(data) + str(self.experts)) as run:
            if run.state == "done":
                run.load("model", self)
                return self.eval()
            run.register("model", self)
            self.history = train(MowstTraining(self, data), run)
            run.finish({})
        return self.eval()

    def answers(
        self,
        x: Float[Tensor, "node feature"] | Features,
        topology: Topology,
        learns: int | None = None,
    ) -> Answers:
        """Ask every expert about every node.

        Args:
            x: Features.
            topology: Edges.
            learns: Only this expert and its gate keep what a gradient needs; all if not given.
        """
        logits, confidences, grad = [], [], torch.is_grad_enabled()
        for number, expert in enumerate(self.experts):
            with torch.set_grad_enabled(grad and learns in (None, number)):
                logits.append(expert(x, topology))
                if number < len(self.gates):
                    confidences.append(self.gates[number](dispersion(logits[-1]), x))
        return Answers(logits, confidences, mixture(confidences, logits[0]))

    def mix(self, answers: Answers) -> Float[Tensor, "node classes"]:
        """Return logarithms of the probabilities of the classes."""
        shares = answers.shares.unbind(1)
        pairs = list(zip(shares, answers.logits, strict=True))
        if self.config.method == "mowst_star":
            return torch.stack([s[:, None] * z for s, z in pairs]).sum(0).log_softmax(1)
        return torch.stack([s[:, None] * z.softmax(1) for s, z in pairs]).sum(0).log()

    @torch.no_grad()
    def forward(self, data: Data) -> Answers:
        """Ask every expert about every node of a graph."""
        check_graph(data)
        check_type(data.x, self)
        check_sizes(self.config, {"features": data.x.shape[1]}, "Mowst")
        answers = self.answers(data.x, Topology(data.edge_index, len(data.x)))
        return flattened(self, answers, data.x) if self.config.quirks else answers

    def predict_proba(
        self, data: Data, nodes: Tensor | None = None
    ) -> Float[Tensor, "node classes"]:
        """Return probabilities of the classes; ``test_mask`` is asked if no nodes are given.

        For Mowst those of the expert that is drawn, on average.
        """
        nodes = chosen(data, nodes)
        return self.mix(self(data))[nodes].exp()

    def predict(self, data: Data, nodes: Tensor | None = None) -> Tensor:
        """Return the most probable classes; ``test_mask`` is asked if no nodes are given."""
        return self.predict_proba(data, nodes).argmax(1)

    def score(self, data: Data, nodes: Tensor | None = None) -> float:
        """Return the accuracy in per cent: for Mowst the expected one of drawing experts."""
        nodes = chosen(data, nodes)
        return self.accuracy(self(data), labels_of(data), nodes)

    def accuracy(self, answers: Answers, y: Tensor, nodes: Bool[Tensor, " node"]) -> float:
        """Return the same from answers."""
        if self.config.quirks and self.config.method == "mowst":
            return sampled_accuracy(answers, y, nodes)
        if self.config.method == "mowst_star":
            return 100 * float((self.mix(answers).argmax(1) == y)[nodes].double().mean())
        right = torch.stack([z.argmax(1) == y for z in answers.logits], 1)
        return 100 * float((answers.shares * right).sum(1)[nodes].double().mean())

    def _build(self) -> None:
        config = self.config
        experts = [make_expert(name, config) for name in config.experts]
        if (strong := self._strong) is not None:
            made = (
                strong if isinstance(strong, nn.Module) else strong(config.features, config.classes)
            )
            experts[-1] = Foreign(made, config.classes)
        self.experts = nn.ModuleList(experts)
        make_gate = HyperGate if config.gate == "hyper" else Gate
        self.gates = nn.ModuleList(make_gate(config) for _ in experts[1:])

    def _adopt(self, sizes: dict[str, int]) -> None:
        config = adopt_sizes(self.config, sizes, "Mowst")
        if config is not None:
            like, self.config = next(self.parameters()), config
            self._build()
            self.to(like)


SYSTEM = System(
    name="mowst",
    paper="arXiv:2311.05185",
    config=MowstConfig,
    build=Mowst,
    convert=convert,
    published={"flickr_gcn": (MowstConfig(), 181_647)},
)
