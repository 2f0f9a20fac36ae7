from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.model import FileKind, Manifest, Plan
from daemon.core.names import folded
from daemon.core.plan import make_plan, wanted_images
from daemon.core.s3url import parse_s3_url

quick = settings(max_examples=100, deadline=None)

HOSTS = ["https://b.s3.us-west-1.amazonaws.com", "https://b.s3-us-west-1.amazonaws.com", "https://s3.us-west-1.amazonaws.com/b"]
FOLDERS = ["", "/a", "/b"]
# Names that are one file on some disks, in several of their forms; and some that are none.
NAMES = [
    "0.png",
    "0.PNG",
    "1.png",
    "%C3%A9.png",
    "e%CC%81.png",
    "E%CC%81.png",
    "2.png",
    ".hidden",
    "response.json",
    "%FF.png",
    "",
]
QUERIES = ["", "?versionId=1", "?X-Amz-Signature=1", "#top"]

urls = st.tuples(
    st.sampled_from(HOSTS), st.sampled_from(FOLDERS), st.just("/"), st.sampled_from(NAMES), st.sampled_from(QUERIES)
)
entries = urls.map("".join) | st.none() | st.integers(0, 2) | st.sampled_from(["", "https://evil.example/0.png"])
manifests = st.lists(entries, max_size=20).map(lambda found: Manifest(tuple(found)))
disks = st.dictionaries(
    st.sampled_from(["0.png", "0.PNG", "1.png", "é.png", "2.png", "caption.txt"]), st.sampled_from(FileKind)
)


def plan_of(manifest: Manifest, disk: dict[str, FileKind]) -> Plan:
    wanted = wanted_images(manifest)
    return make_plan("0001", wanted, {name: kind for name, kind in disk.items() if name in wanted.images})


@quick
@given(manifests, disks)
def test_planning_again_after_every_download_succeeded_finds_nothing(manifest: Manifest, disk: dict[str, FileKind]) -> None:
    first = plan_of(manifest, disk)
    second = plan_of(manifest, disk | {download.name: FileKind.IMAGE for download in first.downloads})
    assert () == second.downloads
    assert sorted([*first.present, *(download.name for download in first.downloads)]) == sorted(second.present)
    assert first.failures == second.failures


@quick
@given(manifests, disks)
def test_every_entry_goes_exactly_one_way(manifest: Manifest, disk: dict[str, FileKind]) -> None:
    plan = plan_of(manifest, disk)
    assert len(manifest.entries) == plan.total + plan.repeated


@quick
@given(manifests, disks)
def test_no_two_downloads_are_one_file_and_none_is_a_strangers(manifest: Manifest, disk: dict[str, FileKind]) -> None:
    plan = plan_of(manifest, disk)
    names = [download.name for download in plan.downloads] + list(plan.present)
    assert len(names) == len({folded(name) for name in names})
    for download in plan.downloads:
        assert disk.get(download.name) in (None, FileKind.EMPTY)
        assert download.ref.name == download.name
    for name in plan.present:
        assert FileKind.IMAGE is disk[name]


@quick
@given(st.data(), manifests, disks)
def test_order_of_the_list_decides_nothing(data: st.DataObject, manifest: Manifest, disk: dict[str, FileKind]) -> None:
    shuffled = Manifest(tuple(data.draw(st.permutations(manifest.entries))))
    one, other = plan_of(manifest, disk), plan_of(shuffled, disk)
    assert {(d.name, d.reason, str(d.ref)) for d in one.downloads} == {(d.name, d.reason, str(d.ref)) for d in other.downloads}
    assert sorted(one.present) == sorted(other.present)
    assert sorted(f.code for f in one.failures) == sorted(f.code for f in other.failures)
    assert one.repeated == other.repeated


@quick
@given(manifests)
def test_objects_that_are_fetched_are_those_of_the_list(manifest: Manifest) -> None:
    listed = set()
    for entry in manifest.entries:
        try:
            listed.add(str(parse_s3_url(entry)))
        except Exception:  # noqa: BLE001, S112 - whatever names no object is not listed
            continue
    assert {str(ref) for ref in wanted_images(manifest).images.values()} <= listed


# --- lists that have nothing to them are planned together: the result is that of one by one ---------------------------

PLAIN = ["a.png", "A.png", "a b.png", "a+b.png", "x" * 255 + ".png", "..", "~.png", "-.png", "a/b.png"]
segments = st.sampled_from([*NAMES, *PLAIN])
folders = st.sampled_from(
    [*HOSTS, *(HOSTS[0] + path for path in ("/a", "/%C3%A9/..", "/a?x=", "/a#")), "s3://b", "s3://b/c", "https:/"]
)


@quick
@given(folders, st.lists(segments, min_size=1, max_size=6), st.sampled_from([None, "http://127.0.0.1:9000"]))
def test_a_usual_list_is_read_as_any_other(folder: str, names: list[str], endpoint: str | None) -> None:
    entries = tuple(f"{folder}/{name}" for name in names)
    quickly = wanted_images(Manifest(entries), endpoint)
    carefully = wanted_images(Manifest((*entries, None)), endpoint)  # what is no text is never usual
    assert dict(carefully.images) == dict(quickly.images)
    assert list(carefully.images) == list(quickly.images)
    assert [failure for failure in carefully.failures if failure.code != "url-not-text"] == list(quickly.failures)
    assert carefully.repeated == quickly.repeated


def test_a_usual_list_takes_the_quick_way() -> None:
    entries = tuple(f"{HOSTS[0]}/a/0001_{number}.png" for number in range(20))
    assert not isinstance(wanted_images(Manifest(entries)).images, dict)
    assert isinstance(wanted_images(Manifest((*entries, None))).images, dict)
