#!/usr/bin/env bash
# From documents to answers: a trained run, an index of it, a server, and two programs that ask it.
#
#   examples/session.sh [RUN] [PORT] [INDEX]
#
# RUN is a run directory (embedtune-demo); where there is none, `embedtune demo` makes it.
# Needs: pip install 'embedtune[demo,serve]' openai
set -euo pipefail

run=${1:-embedtune-demo}
port=${2:-8000}
index=${3:-index}
english="How long does a flat battery take to charge?"
chinese="陷泥拖救的收费是多少？"

[ -d "$run" ] || embedtune demo --out "$run"

embedtune index "$run" --out "$index"

embedtune serve "docs=$run" --index "$index" --no-llm --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server"' EXIT
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/readyz"; do
    kill -0 "$server"   # it ended: so does this
    sleep 0.2
done

python - "http://127.0.0.1:$port/v1" "$english" <<'PYTHON'
import sys

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="none")
question = client.embeddings.create(model="docs:query", input=sys.argv[2])
print(len(question.data[0].embedding), "numbers;", question.usage.prompt_tokens, "tokens")

answer = client.chat.completions.create(
    model="embedtune", messages=[{"role": "user", "content": sys.argv[2]}]
)
print(answer.choices[0].message.content)
PYTHON

embedtune ask "$chinese" --index "$index" --no-llm
