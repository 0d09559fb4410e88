"""A recording to look into: the embedded model in an engine with little room, several tenants' worth of trouble in it.

A shared beginning, chunks, a fork of two, filters, a constraint, a search with its tree, and a prompt that is hostile.
"""

from openwork import LLM, SamplingParams
from openwork.core.budget import Budget
from openwork.core.constraint import Constraint
from openwork.core.search import BestFirst, Search
from openwork.core.settings import ScheduleSettings

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> the"
STORY = "Once upon a time there was a little girl named Lily. She loved to play in the big green park. "
ALONE, FORKED, HOSTILE_ID, FILTERED, BOUND, SEARCHED = "0", "1", "2", "3", "4", "5"


def params(**how):
    return SamplingParams(**{"max_tokens": 24, "seed": 7, "temperature": 0.8, **how})


def record(directory, keeps_prompts=True):
    """Requests ALONE to SEARCHED, recorded in a directory."""
    schedule = ScheduleSettings(max_step_tokens=24, max_running=8)
    bytes_of_12_blocks = 12 * 6 * 2 * 4 * 32 * 16 * 2  # too few for all: some are preempted, what was cached is evicted
    kept = {"record": directory, "record_prompts": keeps_prompts}
    with LLM(kv_cache_bytes=bytes_of_12_blocks, schedule=schedule, **kept) as llm:
        llm.generate([STORY + "One day"], params(temperature=0))
        many = [STORY + "But the dog", HOSTILE, STORY + "One day, she found a key"]
        llm.generate(many, [params(n=2), params(min_p=0.05), params(top_k=40, top_p=0.9)])
        bound = Constraint("regex", " (Lily|Anna)\\. (He|She) (was|is) [a-z ]{3,20}\\.")
        llm.generate(["The name of the girl is"], params(constraint=bound))
        how = Search(best_first=BestFirst(budget=Budget(nodes=2000)), trace=200)
        llm.search("the cat sat on the", how, SamplingParams(min_tokens=3, max_tokens=4, n=3))
    return directory
