"""Names of clusters."""

from __future__ import annotations

from ww_core.consolidation.labels import distinct, keyphrases, label, phrases

BACKUPS = ["the nightly backup failed", "nightly backup ran out of disk", "restore the nightly backup now"]
INVOICES = ["send the open invoice", "the open invoice was paid", "an open invoice for march"]


def test_phrases_have_up_to_three_words_and_no_stop_words_at_their_ends() -> None:
    assert phrases("Out of disk space today") == {
        "disk", "space", "today", "disk space", "space today", "disk space today",
    }  # fmt: skip
    assert "state of mind" in phrases("a state of mind")


def test_phrases_end_at_a_pause_and_fillers_and_speakers_are_no_words() -> None:
    assert phrases("Nate: Yeah, I’ve seen the red panda! Haven't you? - Let's go", {"nate"}) == {
        "seen", "red", "red panda", "panda", "seen the red",
    }  # fmt: skip
    assert phrases("Wow, thanks! [image: a sea turtle]") == {"image", "sea", "turtle", "sea turtle"}


def test_what_sets_a_cluster_apart_comes_first() -> None:
    first, second = keyphrases([BACKUPS, INVOICES])
    assert first[0] == "nightly backup"
    assert second[0] == "open invoice"


def test_a_phrase_of_one_text_alone_is_never_used() -> None:
    (found,) = keyphrases([["the password is swordfish", "reset the password", "password reset mail"]])
    assert found
    assert all("swordfish" not in phrase for phrase in found)


def test_no_phrase_says_a_word_again_in_another_form() -> None:
    (found,) = keyphrases([["turtles swim", "a turtle basks", "turtle", "turtles", "the turtle's pond"]])
    assert len([phrase for phrase in found if "turtle" in phrase]) == 1


def test_words_that_every_cluster_has_say_nothing() -> None:
    common = [[f"please {text}" for text in texts] for texts in (BACKUPS, INVOICES)]
    assert all(not phrases_[0].startswith("please") for phrases_ in keyphrases(common))


def test_a_label_is_as_short_as_it_can_be_while_it_differs() -> None:
    assert label(("nightly backup", "disk"), set()) == "nightly backup"
    assert label(("backup", "disk full"), set()) == "backup, disk full"
    assert label(("nightly backup", "disk"), {"Nightly Backup"}) == "nightly backup, disk"


def test_no_two_labels_are_the_same() -> None:
    taken: set[str] = set()
    for _ in range(5):
        taken.add(label(("nightly backup", "disk"), taken))
    assert len(taken) == 5
    assert distinct("X", {"x", "X (2)"}) == "X (3)"


def test_clusters_without_words_are_named_all_the_same() -> None:
    assert keyphrases([["12 34", "56 78"], []]) == [(), ()]
    names: set[str] = set()
    for _ in range(2):
        names.add(label((), names))
    assert len(names) == 2


def test_labels_stay_short() -> None:
    assert len(label(("extraordinarily " * 8,), set())) <= 60
