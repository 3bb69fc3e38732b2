"""The anytime engine: members run one after the other, and every finished prefix is an answer.

Arrows point down; nothing here knows HTTP:

    gate (event loop)  ->  worker (thread)  ->  scheduler (no IO)  ->  cost, deadline
    host (event loop)  ->      └─> executor (cpu; cuda in slots of fixed memory)
    gate, worker, scheduler and executor hold tickets; host loads, measures and unloads models
"""
