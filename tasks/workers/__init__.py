"""Workers: the steps of variants, shared among processes of this machine or of others. The recipe says nothing of it, and the result does not depend on it."""
