"""Servers without deadlines, to measure this one against: each the best that its framework makes easy."""
