"""Hookline on one machine, without root and without Docker.

servers    fetch nats-server, a Redis-compatible server and the checkers into .servers/
ports      which port to use: the usual one, or a free one where it is taken
processes  start, recognise and end processes
cluster    NATS, Redis, a gateway, dispatchers and a receiver, started in order
receiver   an HTTP server that records what it is sent
nats       publish one message, over a plain socket
terminal   what the tools print
up         make up, make down
demo       make demo
cli        the command line of all but the fetching
paths      where things lie; interrupt: Ctrl-C and SIGTERM

Standard library only, Python 3.8 or newer. Nothing here is part of the product.
"""
