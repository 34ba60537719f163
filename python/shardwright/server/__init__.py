# The server behind `shardwright serve`: OpenAI's HTTP interface to a PEF that writes text.
"""From the wire to the chips:

app (HTTP) -> protocol (JSON of OpenAI) -> batcher (queue, slots, one thread) -> _core.Generator
"""
