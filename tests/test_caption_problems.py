from fgmm_tools.caption_problems import CaptionProblems


def test_each_caption_is_named_once_and_those_after_the_first_are_counted(capsys):
    problems = CaptionProblems()
    assert problems.summarize() == ""
    problems.add(["a is wrong.", "b is wrong."])
    problems.add(["a is wrong."])
    assert problems.summarize() == "2 captions were left out or repaired, named above."
    problems.add(f"{number} is wrong." for number in range(8))
    assert capsys.readouterr().err.splitlines() == [f"{name} is wrong." for name in "ab012"]
    assert problems.summarize() == ("10 captions were left out or repaired, the first 5 of which are named above.")
