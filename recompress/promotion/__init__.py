"""How a model gets into production: one table of states, one lock, every intent written before its effect.

``states`` holds the table; ``decisions`` what is proposed and judged; ``approvals`` what people say; ``effects`` what is done to the registry; ``promoter`` puts them in order, and takes up
what a killed process left behind. The registry is whatever answers to ``ModelRegistry``.
"""

from recompress.promotion.approvals import approve, reject
from recompress.promotion.decisions import judge, named, propose, waiting
from recompress.promotion.effects import CRASH_POINTS, champion_by_ledger, present_champion
from recompress.promotion.promoter import Promoted, Promoter
from recompress.promotion.registry import HEAD_TAG, MANIFEST_TAG, MODEL_TAG, PLAN_TAG, ModelRegistry
from recompress.promotion.states import REASONS, STEPS, Progress, PromotionRefused, progress_of

__all__ = [
    "CRASH_POINTS",
    "HEAD_TAG",
    "MANIFEST_TAG",
    "MODEL_TAG",
    "PLAN_TAG",
    "REASONS",
    "STEPS",
    "ModelRegistry",
    "Progress",
    "Promoted",
    "Promoter",
    "PromotionRefused",
    "approve",
    "champion_by_ledger",
    "judge",
    "named",
    "present_champion",
    "progress_of",
    "propose",
    "reject",
    "waiting",
]
