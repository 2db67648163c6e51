"""How fast this box runs layers of every type, measured."""
