"""EditorBot: learns to edit music from people who compare two edits of one song."""

import os

# Read by OpenMP when torch starts its threads. Threads that spin while they wait make training ten times slower on a
# machine whose cores are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
