"""The cloud on your own machine, for `make run` and the tests; never in the deployment package."""
