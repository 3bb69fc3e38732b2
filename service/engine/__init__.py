"""The anytime engine: members run one after the other, and every finished prefix is an answer.

Arrows point down; nothing here knows HTTP:

    gate (event loop)  ->  worker (thread)  ->  scheduler (no IO)  ->  cost, deadline
                               └─> executor (cpu, cuda)
    all of them hold tickets
"""
