"""The ledger: what the papers claim, in the numbering of the protocol, and which study tests it.

wmzoo claims
The papers' figures are their own, at their own scale, on their own tasks; GR1-24 and RoboCasa are FLARE's, LIBERO is LARA's and UWM's.
Half of a batch with video has no actions: claims 4 and 22 are asked at equal steps, 22 also with as many windows that have actions.
"""

from itertools import pairwise

from wmzoo.ledger import Claim

from .implicit_vs_explicit import FEW, MANY


def claims() -> list[Claim]:
    def main(number: int, family: str, says: str, paper: str, ours: str, theirs: tuple[str, ...], setting: str = MANY) -> Claim:
        return Claim(number, family, says, paper, "implicit_vs_explicit", ours, theirs, (setting,))

    def flare(number: int, says: str, paper: str, theirs: tuple[str, ...], also: tuple[tuple[str, str], ...] = ()) -> Claim:
        return Claim(number, "FLARE", says, paper, "flare_ablation", "flare", theirs, also=also)

    def lara(number: int, says: str, paper: str, theirs: tuple[str, ...]) -> Claim:
        return Claim(number, "LARA", says, paper, "lara_ablation", "lara", theirs)

    frozen, rival = "92.5 against 85.5% (LIBERO-Long)", "70.1 against 60.8% (RoboCasa-24), 55.0 against 29.5% (GR1-24)"
    foreseen = "DINO L1 .030 against .078, .063, .143, .084"
    both = "92.5 against 88.0 without alignment and 89.5% without the model's own loss"
    targets = ("flare_tokens", "flare_tokens, not pooled", "flare_off")
    weights = ("weight 0.05", "weight 0.1", "weight 0.5", "weight 1.0")
    others, bc = ("dino_wm_one_shot", "dino_wm", "fm_wm", "rae", "video"), "35.6 against 27.2% (5 tasks)"
    alone = "70.1 against 61.9% (RoboCasa-24), 55.0 against 44.0% (GR1-24)"
    video_uwm = "Stack-Bowls .92 against .86"
    labels = "49.5 against 42.8% as pseudo-labels (SIMPLER)"
    few, video = "about +10 points with 100 demonstrations a task", "37.5 to 60% with one robot demonstration and human video"
    return [
        main(1, "FLARE", "beats policy-only", alone, "flare", ("policy_embedding",)),
        main(2, "FLARE", "beats UWM at equal compute", rival, "flare, twice the steps", ("uwm",)),
        Claim(3, "FLARE", "gains more with fewer demonstrations", few, "implicit_vs_explicit", "flare", ("policy_embedding",), (FEW, MANY),
              "few less many"),
        main(4, "FLARE", "action-free video helps", video, "flare_video", ("flare",), FEW),
        flare(5, "the action-aware target beats frozen pooled tokens, these all frozen tokens, and these none",
              "55.0 against 49.6 and 43.9% (GR1-24)", targets[::2], tuple(pairwise(targets))),
        flare(6, "tap at 0.75 L beats early taps", "layer 6 of 8 is best, 4 clearly worse", ("tap 0.25", "tap 0.5")),
        flare(7, "weight 0.2 is best", "0.2 is best of those tried", weights),
        flare(8, "an averaged target with rho 0.995 is best, and one that never moves beats none", "0.995 best, 0.99 worst, all beat none",
              ("rho 0.99", "rho 0.9", "rho 1.0"), (("rho 1.0", "flare_off"),)),
        main(9, "LARA", "joint training beats the DiT alone", "88.6 against 84.4% (LIBERO)", "lara", ("policy",)),
        main(10, "LARA", "joint beats a frozen latent action model", frozen, "lara", ("lara_frozen",)),
        Claim(11, "LARA", "the aligned model's latents probe better", labels, "latent_actions", "lara", ("lara_off",), measure="probe"),
        lara(12, "tap L - 2 is best, early hurts", "tap 4: 86.5, 8: 89, L - 2: 92.5, L: 87% (LIBERO-Long)", ("tap -6", "tap 8")),
        lara(13, "weight .01 beats .1 and 1", "92.5% at best; .1 and 1 degrade", ("weights .1", "weights 1")),
        lara(14, "both terms are needed", both, ("lara_off", "align alone")),
        Claim(15, "RLA", "a small latent of feature residuals reconstructs the future in one pass", "no single figure", "residuals",
              "rla", ("rla_no_latent",), measure="l1"),
        Claim(16, "RLA", "RLA-WM foresees better (features, L1) than DINO-WM, FM-WM, RAE and video diffusion", foreseen, "world_models",
              "rla_wm", others, measure="l1"),
        Claim(17, "RLA", "at a fraction of the operations of FM-WM, RAE, video diffusion", "3.5T against 14.3T, 14.3T, 1.1P (DINO-WM 2.1T)",
              "world_models", "rla_wm", ("fm_wm", "rae", "video"), measure="GFLOP"),
        Claim(18, "RLA", "the latent space orders time", "shown in pictures", "residuals", "rla", measure="order"),
        Claim(19, "RLA", "it transfers to unseen tasks", "shown in pictures", "residuals", "rla", ("rla_no_latent",), measure="transfer"),
        Claim(20, "RLA", "BC-RLA beats BC when 5% of videos have actions", bc, "few_actions", "bc_rla", ("bc",), ("4% with actions",)),
        Claim(21, "RLA", "RL inside RLA-WM improves BC", "60.7 against 59.6% (5 tasks)", "model_rl", "bc_rl", ("bc_rl_off",)),
        Claim(22, "UWM", "co-training on action-free video helps", video_uwm, "implicit_vs_explicit", "uwm_video", ("uwm",), (FEW,),
              also=(("uwm_video, twice the steps", "uwm"),)),
        main(23, "UWM", "predicting the future beats reconstructing the present", "Stack-Bowls .86 against .70", "uwm", ("uwm_current",)),
    ]  # fmt: skip
