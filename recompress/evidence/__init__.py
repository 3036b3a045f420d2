"""Evidence: for each promotion a folder that proves, anywhere and for ever, what was made from what, how it was judged, and who agreed."""

from recompress.evidence.broken import BundleBroken
from recompress.evidence.bundle import write_bundle
from recompress.evidence.dossier import Dossier, Story, committed_plans, folder_name, tell
from recompress.evidence.verify import BundleReport, verify_bundle

__all__ = ["BundleBroken", "BundleReport", "Dossier", "Story", "committed_plans", "folder_name", "tell", "verify_bundle", "write_bundle"]
