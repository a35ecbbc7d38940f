"""Every order of a few calls, on the real scripts, against the promises of the chat.

store      the Redis commands that the scripts use, on a state that is cheap to copy and to compare
lua        the scripts as they are, in Lua 5.1 on that store
calls      the product's own Python on that store, its randomness and its time in our hand
promises   what holds in every state and of every reply, by name
actions    what may happen next
models     small alphabets of actions
explore    the search over all orders
mutations  what the scripts do for a promise, taken away one at a time
"""
