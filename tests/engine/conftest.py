"""What tests of the engine share."""

from __future__ import annotations

import pytest

from tgi.engine import sampler
from tgi.kernels.native.library import NativeUnavailable, Pool, load
from tgi.kernels.native.vocabulary import NativeVocabulary
from tgi.kernels.reference.vocabulary import TorchVocabulary


@pytest.fixture(scope="module", params=["torch", "native"])
def vocabulary(request):
    """Samplers of a module's tests work with each implementation of `kernels.types.Vocabulary`."""
    try:
        made = TorchVocabulary() if request.param == "torch" else NativeVocabulary(Pool(load(), 2))
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "TorchVocabulary", lambda: made)
        yield made
