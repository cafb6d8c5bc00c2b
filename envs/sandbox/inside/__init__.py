"""What runs behind the sandbox's wall: the warm server, the programs it forks, and the words they speak.

Standard library only, and nothing of agentkit: this folder alone is shown inside, as the package ``inside``.
"""
