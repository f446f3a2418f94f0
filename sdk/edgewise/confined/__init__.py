"""sdk, confined: programs that nobody vouches for, such as what a model wrote: run where they can do no harm."""
