"""Users and items as duals for recore: two views of one log that are encoded, compared and asked.

`options` and `plugin` are free of torch. `next_user` is the objective, `consistency` the loss, `model` the two
views, `known` what is known of users at a moment, `training` and `scorer` the model's two sides, `trainer` the
pace of the losses, `audience` the evaluator.
"""
