"""Development tools: Hookline on one machine, without root or Docker.

servers    fetches nats-server, a Redis-compatible server, Prometheus and checkers into .servers/
ports      chooses the default ports, or free ones if those are taken
processes  starts, identifies and stops processes
cluster    starts NATS, Redis, a gateway, dispatchers and a receiver in order, and Prometheus beside them
receiver   an HTTP server that records requests
nats       publishes a message over a plain socket
terminal   prints progress and results
up         make up, make observe, make down, hookline-local pub
scale      hookline-local scale and autoscale
demo       make demo
cli        the command line of hookline-local
paths      all paths
interrupt  handles Ctrl-C and SIGTERM

Standard library only, Python 3.8 or newer.
"""
