"""Small chat templates that write tools, calls and results as each family's do."""

_TURN = (
    "{% for m in messages %}{% if m.role == 'tool' %}RESULT{% else %}<{{ m.role }}>{{ m.content }}CALLS{% endif %}"
    "{% endfor %}"
)
_LOOP = "{% for c in m.tool_calls or [] %}{% set f = c.function %}BODY{% endfor %}"


def _template(calls: str, result: str = "<tool>{{ m.content }}", tools: str = "{{ tools | tojson }}") -> str:
    return f"{{% if tools %}}{tools}{{% endif %}}" + _TURN.replace("RESULT", result).replace("CALLS", calls)


def _each(body: str) -> str:
    return _LOOP.replace("BODY", body)


_PYTHON = (
    "{{ f.name }}({% for k, v in f.arguments.items() %}{% if not loop.first %}, {% endif %}{{ k }}="
    "{% if v is string %}{{ v | tojson }}{% else %}{{ v }}{% endif %}{% endfor %})"
)
_COMMA = "{% if not loop.first %}, {% endif %}"
_LIST = _COMMA + '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'


def _listed(begin: str, body: str, end: str) -> str:
    return "{% if m.tool_calls %}" + begin + _each(body) + end + "{% endif %}"


def _keyed(begin: str, end: str, quote: str) -> str:
    value = "{% if v is string %}Q{{ v }}Q{% else %}{{ v | tojson }}{% endif %}".replace("Q", quote)
    pairs = "{% for k, v in f.arguments.items() %}{% if not loop.first %},{% endif %}{{ k }}:" + value + "{% endfor %}"
    return _each(begin + "{{ f.name }}{{ '{' }}" + pairs + "{{ '}' }}" + end)


TEMPLATES = {
    "hermes": _template(
        _each('<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>'),
        "<tool_response>{{ m.content }}</tool_response>",
    ),
    "qwen3_coder": _template(
        _each(
            "<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}<parameter={{ k }}>\n"
            "{% if v is string %}{{ v }}{% else %}{{ v | tojson }}{% endif %}\n</parameter>\n{% endfor %}"
            "</function>\n</tool_call>"
        )
    ),
    "glm45": _template(
        _each(
            "<tool_call>{{ f.name }}\n{% for k, v in f.arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>"
            "{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>"
        ),
        "<|observation|>{{ m.content }}",
    ),
    "glm4": _template(_each("{{ f.name }}\n{{ f.arguments }}"), "<|observation|>{{ m.content }}"),
    "llama3_json": _template(
        _each('{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}'),
        "<|start_header_id|>ipython{{ m.content }}",
    ),
    "pythonic": _template(_listed("<|python_start|>[", _COMMA + _PYTHON, "]<|python_end|>")),
    "llama_tags": _template(_each("<function={{ f.name }}>{{ f.arguments | tojson }}</function>")),
    "mistral": _template(
        _listed(
            "[TOOL_CALLS][",
            "{% if c.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}" + _LIST[:-1]
            + ', "id": "{{ c.id }}"}',
            "]",
        ),
        "[TOOL_RESULTS]{{ m.content }}{{ m.tool_call_id }}[/TOOL_RESULTS]",
        "[AVAILABLE_TOOLS]{{ tools | tojson }}",
    ),
    "mistral_tekken": _template(_each("[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}")),
    "deepseek_v3": _template(
        _listed(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>{{ c.type }}<｜tool▁sep｜>{{ f.name + '\\n```json\\n' + f.arguments + '\\n```' }}"
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ),
        "<｜tool▁output▁begin｜>{{ m.content }}",
    ),
    "deepseek_v31": _template(
        _listed(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>{{ f.arguments | tojson }}<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        )
    ),
    "kimi_k2": _template(
        _listed(
            "<|tool_calls_section_begin|>",
            "<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>{{ f.arguments | tojson }}<|tool_call_end|>",
            "<|tool_calls_section_end|>",
        ),
        "## Return of {{ m.tool_call_id }}\n{{ m.content }}",
    ),
    "granite": _template(_listed("<|tool_call|>[", _LIST, "]")),
    "phi4_mini": _template(
        _listed("<|tool_call|>[", _LIST, "]<|/tool_call|>"),
        tools="",
    ).replace(
        "<{{ m.role }}>{{ m.content }}",
        "<{{ m.role }}>{{ m.content }}{% if m['tools'] %}<|tool|>{{ m['tools'] }}<|/tool|>{% endif %}"
        "{# message['tools'] #}",
    ),
    "command_r7b": _template(
        _listed(
            "<|START_ACTION|>[",
            _COMMA + '{"tool_call_id": "0", "tool_name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}',
            "]<|END_ACTION|>",
        )
    ),
    "command_r": _template(
        _listed(
            "Action: ```json\n[",
            _COMMA + '{"tool_name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}',
            "]```",
        )
    ),
    "function_gemma": _template(_keyed("<start_function_call>call:", "<end_function_call>", "<escape>")),
    "gemma4": _template(_keyed("<|tool_call>call:", "<tool_call|>", '<|"|>')),
    "gemma3": _template(_listed("```tool_code\n", _COMMA + _PYTHON, "\n```")),
    "harmony": _template(
        _each("<|start|>assistant<|channel|>commentary to=functions.{{ f.name }} <|constrain|>json<|message|>"
              "{{ f.arguments | tojson }}<|call|>"),
        "<|start|>functions<|message|>{{ m.content }}<|end|>",
    ),
    "json": _template(_each('{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}')),
}  # fmt: skip
