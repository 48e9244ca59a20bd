"""Which tokenizer class transformers takes for a model type, and which classes it does not build anew.

As `AutoTokenizer` of transformers 5.24 has it, for the families served here; a test compares the tables.
"""

from __future__ import annotations

TYPES_OF_CLASS = {
    "CohereTokenizer": ("cohere", "cohere2"),
    "GPT2Tokenizer": ("codegen", "dbrx", "gpt2", "gpt_neo", "gptj", "opt", "phi", "starcoder2"),
    "GPTNeoXTokenizer": ("gpt_neox", "mamba2", "mpt", "olmo", "olmoe"),
    "GemmaTokenizer": ("gemma", "gemma2", "gemma3", "gemma3_text"),
    "M2M100Tokenizer": ("m2m_100",),
    "MBartTokenizer": ("mbart",),
    "MarianTokenizer": ("marian",),
    "PegasusTokenizer": ("pegasus",),
    "Qwen2Tokenizer": ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"),
    "Qwen3_5Tokenizer": ("qwen3_5", "qwen3_5_text"),
    "RobertaTokenizer": ("bart",),
    "T5Tokenizer": ("mt5", "t5"),
    "XGLMTokenizer": ("xglm",),
}
OWN_CLASS = {model_type: name for name, types in TYPES_OF_CLASS.items() for model_type in types}
"""Model type -> the class that transformers has for it."""
GENERIC_TYPES = frozenset(
    {
        "ernie4_5", "ernie4_5_moe", "glm", "glm4", "glm4_moe", "gpt_bigcode", "granite", "granitemoe",
        "granitemoehybrid", "internlm3", "ministral", "ministral3", "mistral", "mistral3", "mixtral", "nemotron",
        "olmo2", "olmo3", "phi3", "phimoe", "stablelm", "umt5",
    }
)  # fmt: skip
"""Model types whose tokenizers are never built anew, whatever class a checkpoint names."""
DISTRUSTED_TYPES = ("qwen2",)
"""Model types whose checkpoints often name a wrong class: their own is taken."""
OTHER_CLASSES = frozenset(
    {
        "AlbertTokenizer", "BarthezTokenizer", "BertTokenizer", "BigBirdTokenizer", "CamembertTokenizer",
        "CodeGenTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer", "EsmcTokenizer", "ReformerTokenizer",
        "RemBertTokenizer", "SeamlessM4TTokenizer", "WhisperTokenizer", "XLMRobertaTokenizer", "XLNetTokenizer",
    }
)  # fmt: skip
"""Classes that transformers builds anew and this server does not: tokenizer.json is taken as it is."""
PIECE_ROLES: dict[str, str | None] = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
FAIRSEQ_ROLES = {**PIECE_ROLES, "sep_token": "</s>", "cls_token": "<s>"}
KEPT_CLASSES: dict[str, dict[str, str | None]] = {
    "MBart50Tokenizer": {**FAIRSEQ_ROLES, "mask_token": "<mask>"},
    "MBartTokenizer": {**FAIRSEQ_ROLES, "bos_token": "<s>", "mask_token": "<mask>"},
    "NllbTokenizer": {**FAIRSEQ_ROLES, "bos_token": "<s>", "mask_token": "<mask>"},
    "PegasusTokenizer": {**PIECE_ROLES, "mask_token": "<mask_2>"},
    "T5Tokenizer": PIECE_ROLES,
    "XGLMTokenizer": {**FAIRSEQ_ROLES, "bos_token": "<s>"},
}
"""Classes that build what their tokenizer.json has already, and their tokens of roles that no file names."""
