"""A cluster seen from outside: jobs sent to it, and what stands in a sweep's way there."""
