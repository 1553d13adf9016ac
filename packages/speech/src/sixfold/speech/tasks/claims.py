"""What each experiment of the pipeline tests: the paper's claim, the rows, the scores shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One experiment, as the report tells it.

    Args:
        title: Of its section.
        text: What the paper claims, and what is set against it here.
        names: Of the rows.
        scores: Label and digits of each score that is shown; the first one decides.
        pairs: The system and the baseline that it should beat.
        curve: The column of the learning curve, its label, and the sign that it is shown with.
        caption: Of the table of scores.
        apart: Rows whose sounds are of other recordings than the test's.
    """

    title: str
    text: str
    names: dict[str, str]
    scores: dict[str, tuple[str, int]]
    pairs: tuple[tuple[str, str], ...]
    curve: tuple[str, str, int]
    caption: str = "Test mixtures"
    apart: tuple[str, ...] = ()


CLAIMS = {
    "enhancement": Claim(
        title="Enhancement: FRCRN",
        text="The paper (arXiv:2206.07293) claims that recurrence along frequency improves "
        "enhancement. Its numbers, at full size on other data: VoiceBank+DEMAND, PESQ 3.21; "
        "DNS-2020 without reverberation, WB-PESQ 3.23. Here the same network is trained with and "
        "without that recurrence, the channels of the second raised to as many parameters, on "
        "SI-SNR alone.",
        names={
            "input": "noisy input",
            "frcrn": "FRCRN",
            "frcrn_no_recurrence": "no frequency recurrence",
        },
        scores={
            "si_sdr": ("SI-SDR, dB", 2),
            "pesq_wb": ("PESQ-wb", 2),
            "stoi": ("STOI", 3),
            "dnsmos": ("DNSMOS overall", 2),
        },
        pairs=(("frcrn", "frcrn_no_recurrence"),),
        curve=("si_snr", "training SI-SNR, dB", -1),
    ),
    "separation": Claim(
        title="Separation: MossFormer2",
        text="The paper (arXiv:2312.11825) claims that memory blocks between the attention blocks "
        "of MossFormer improve separation. Its numbers, at full size: SI-SDRi of 21.7 dB on "
        "Libri2Mix, and 24.1 dB on WSJ0-2mix, where MossFormer has 22.8 dB. The row of the "
        "released MossFormer2 scores its published outputs of 20 Libri2Mix mixtures once more. "
        "The others are small networks of about as many parameters each, trained here on one "
        "pair of voices.",
        names={
            "mixture": "mixture",
            "ideal_ratio_mask": "ideal ratio mask",
            "published": "released MossFormer2, its outputs",
            "mossformer2": "MossFormer2",
            "mossformer": "MossFormer",
            "conv_tasnet": "Conv-TasNet",
        },
        scores={
            "si_sdri": ("SI-SDRi, dB", 2),
            "si_sdr": ("SI-SDR, dB", 2),
            "sdri": ("SDRi, dB", 2),
            "libri2mix_si_sdri": ("Libri2Mix, first 3 s: SI-SDRi, dB", 2),
        },
        pairs=(("mossformer2", "mossformer"), ("mossformer2", "conv_tasnet")),
        curve=("pit_si_snr", "training SI-SNR, dB", -1),
        caption="Test mixtures of two held-out recordings (the released network's row: Libri2Mix)",
        apart=("published",),
    ),
    "multichannel": Claim(
        title="Microphone arrays: DeFTAN-II",
        text="The paper (arXiv:2308.15777) claims that splitting features into subgroups makes a "
        "transformer over time and frequency better at the same cost; its numbers, at full size "
        "on spatialised DNS data: SI-SDR 12.0 dB, from -7.8 dB. Here a small DeFTAN-II at four "
        "microphones stands against the same at one, against a plain transformer of as many "
        "multiplications, and against delay-and-sum. The published item is one recording "
        "simulated by the authors, beside what their trained network made of it; its target lies "
        "33 samples before the direct sound at microphone 0, which a network has to have learned.",
        names={
            "microphone": "microphone 0",
            "delay_and_sum": "delay-and-sum",
            "deftan2_published": "released DeFTAN-II, its output",
            "deftan2": "DeFTAN-II, 4 microphones",
            "deftan2_one": "DeFTAN-II, 1 microphone",
            "tf_transformer": "plain transformer, 4 microphones",
        },
        scores={
            "si_sdr": ("SI-SDR, dB", 2),
            "pesq_wb": ("PESQ-wb", 2),
            "stoi": ("STOI", 3),
            "si_sdr_published": ("SI-SDR of the published item, dB", 2),
        },
        pairs=(("deftan2", "deftan2_one"), ("deftan2", "tf_transformer")),
        curve=("si_snr", "training SI-SNR, dB", -1),
        caption="Simulated test recordings",
    ),
}
