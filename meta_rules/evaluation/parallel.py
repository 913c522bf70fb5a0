"""Many small independent pieces of work for scikit-learn, spread over the cores.

Its matrices are too small here for threads to share one product; so every process has one thread, and works on pieces of
its own.
"""

import joblib

#: Fewer pieces than this are done at once, in this process: starting others would take longer.
WORTHWHILE = 16


def on_all_cores(function, calls):
    """What `function(*arguments)` returns for every tuple of arguments in `calls`, in their order.

    Function, arguments and results must be picklable; an exception of one call is raised here.
    """
    calls = list(calls)
    if len(calls) < WORTHWHILE:
        return [function(*arguments) for arguments in calls]
    return joblib.Parallel(n_jobs=joblib.cpu_count())(joblib.delayed(function)(*each) for each in calls)
