from bearray.data import clean_title


def test_entities_become_characters() -> None:
    assert clean_title("Salt &amp; Pepper &#39;n&#39; &quot;Spice&quot;") == "Salt & Pepper 'n' \"Spice\""


def test_published_text_is_kept_on_demand() -> None:
    assert clean_title("Salt &amp;  Pepper", unescape=False) == "Salt &amp; Pepper"


def test_white_space_is_collapsed_and_blank_titles_are_empty() -> None:
    assert clean_title("  a\t b\n\nc ") == "a b c"
    assert clean_title(" &nbsp;\u00a0") == ""
    assert clean_title(None) == ""
