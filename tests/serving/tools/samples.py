"""Answers as models of each family write them, and what they mean."""

from __future__ import annotations

from tgi.serving.chat.conversation import Tool

WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "exact": {"type": "boolean"},
        },
        "required": ["city"],
    },
)
NOW = Tool("now", "The time", None)
TOOLS = (WEATHER, NOW)
PARIS = ("get_weather", {"city": "Paris"})
THREE = ("get_weather", {"city": 'Paris "é"\n<', "days": 3, "unit": "C", "exact": True})
TIME = ("now", {})

SAMPLES: list[tuple[str, str, str, list[tuple[str, dict]]]] = [
    # format, answer, text beside the calls, calls
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', "", [PARIS]),
    ("hermes", 'Let me see.\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
     '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call>', "Let me see.", [TIME, PARIS]),
    ("hermes", '<tool_call>{"name": "now"}</tool_call>', "", [TIME]),
    ("hermes", '<tool_call>{"name": "now", "arguments": null}</tool_call>', "", [TIME]),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>', "", [PARIS]),
    ("hermes", "<tool_call>nonsense</tool_call>, a < b", "<tool_call>nonsense</tool_call>, a < b", []),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris \\"é\\"\\n<", "days": 3, '
     '"unit": "C", "exact": true}}</tool_call>', "", [THREE]),
    ("json", '{"name": "get_weather", "arguments": {"city": "Paris"}}', "", [PARIS]),
    ("json", '[{"name": "now", "arguments": {}}, {"name": "get_weather", "arguments": {"city": "Paris"}}]', "",
     [TIME, PARIS]),
    ("json", '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),
    ("json", "Hello [x] {y}", "Hello [x] {y}", []),
    ("llama3_json", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    ("llama3_json", '<|python_tag|>{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": '
     '{"city": "Paris"}}', "", [TIME, PARIS]),
    ("pythonic", '[get_weather(city="Paris"), now()]', "", [PARIS, TIME]),
    ("pythonic", "<|python_start|>[get_weather(city='Paris \"é\"\\n<', days=3, unit=\"C\", exact=True)]<|python_end|>",
     "", [THREE]),
    ("pythonic", "[1, 2] and more", "[1, 2] and more", []),
    ("llama_tags", '<function=get_weather>{"city": "Paris"}</function>', "", [PARIS]),
    ("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}, '
     '{"name": "now", "arguments": {}}]', "", [PARIS, TIME]),
    ("mistral_tekken", 'Yes.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}',
     "Yes.", [PARIS, TIME]),
    ("mistral_tekken", '[TOOL_CALLS]get_weather{"city": "Paris"}', "", [PARIS]),
    ("deepseek_v3", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n'
     '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n'
     '```<｜tool▁call▁end｜><｜tool▁calls▁end｜>', "", [PARIS, TIME]),
    ("deepseek_v31", 'Well.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}'
     '<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
     "Well.", [PARIS, TIME]),
    ("kimi_k2", '<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>'
     '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}'
     '<|tool_call_end|><|tool_calls_section_end|>', "", [PARIS, TIME]),
    ("granite", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    ("phi4_mini", '<|tool_call|>[{"name": "now", "arguments": {}}]<|/tool_call|>', "", [TIME]),
    ("command_r7b", '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
     '{"city": "Paris"}}\n]<|END_ACTION|>', "", [PARIS]),
    ("command_r7b", "<|START_RESPONSE|>Hello.<|END_RESPONSE|>", "Hello.", []),
    ("command_r", 'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": '
     '{"city": "Paris"}\n    }\n]```', "", [PARIS]),
    ("qwen3_coder", "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis \"é\"\n<\n</parameter>\n"
     "<parameter=days>\n3\n</parameter>\n<parameter=unit>\nC\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n"
     "</function>\n</tool_call>", "I look.", [THREE]),
    ("qwen3_coder", "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=get_weather>\n"
     "<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", "", [TIME, PARIS]),
    ("glm45", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>\n"
     "<tool_call>now\n</tool_call>", "", [PARIS, TIME]),
    ("glm4", 'get_weather\n{"city": "Paris"}', "", [PARIS]),
    ("glm4", "getting on\nwith it", "getting on\nwith it", []),
    ("function_gemma", "<start_function_call>call:get_weather{city:<escape>Paris \"é\"\n<<escape>,days:3,"
     "unit:<escape>C<escape>,exact:true}<end_function_call>", "", [THREE]),
    ("gemma4", '<|tool_call>call:now{}<tool_call|><|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>', "",
     [TIME, PARIS]),
    ("gemma3", 'So:\n```tool_code\nget_weather(city="Paris")\n```', "So:", [PARIS]),
    ("harmony", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
     'to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>', "", [PARIS]),
    ("harmony", "<|channel|>final<|message|>Hello<|return|>", "Hello", []),
    ("harmony", '<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now<|channel|>'
     'commentary json<|message|>{}<|call|>', "I look.", [TIME]),
]  # fmt: skip
