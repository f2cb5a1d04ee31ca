# MIT License, see LICENSE
"""Strategy `mitogen_linear`, from the package of that name: ANSIBLE_STRATEGY=mitogen_linear.

Ansible looks for strategies in folders, and Mitogen's lies somewhere in the virtual environment.
"""

from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

__all__ = ["StrategyModule"]
