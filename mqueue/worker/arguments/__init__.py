"""Turn a call of a task into bytes and back, without a surprise on the way.

What happens here. At `enqueue` a call is bound to the function's signature and made into JSON. If each argument is
exactly of a type that JSON keeps, that is all. Otherwise the bytes are read back at once, as the worker would read
them, and what would arrive is compared with what was given. The worker reads the bytes and turns each argument into the
type that its parameter is annotated with. Results go the other way by the same rules.

Who is authoritative. The function's annotations are: they alone choose what is built, data never does. They are read at
the first use, since a module may name types that it defines further down.

What failure does. A call that would not arrive as it was given raises TypeError where it is enqueued, naming the task
and the argument, and nothing is sent. A type that cannot come back from JSON is refused at the first enqueue and when a
worker starts. In the worker a payload that does not fit raises Misfit, and the job becomes a dead letter at once:
another try would bring the same bytes. A result that cannot be kept raises BadResult, which does the same.

Which file to open:

    codec.py        a call as bytes and back: the signature, the envelope, what does not fit
    kinds.py        which types may arguments have?
    difference.py   does a value come back from JSON as it was?
    models.py       pydantic models, known by their marks: pydantic is never imported
"""
