"""What the modules of the role hardening make of files, without a host."""

import pytest

LOGIN_DEFS = """\
# UMASK is the default umask.
#UMASK 077
UMASK\t\t022
HOME_MODE 0755
HOME_MODE 0700
ENCRYPT_METHOD SHA512
"""


def test_settings_are_changed_where_they_stand_and_added_where_they_are_missing(text_files):
    values = {"UMASK": "027", "HOME_MODE": "0750", "ENCRYPT_METHOD": "SHA512", "NEW": 1}
    text = text_files.with_settings(LOGIN_DEFS, values)
    assert text.splitlines() == [
        "# UMASK is the default umask.",
        "#UMASK 077",
        "UMASK\t027",
        "HOME_MODE\t0750",
        "ENCRYPT_METHOD SHA512",
        "NEW\t1",
    ]
    assert text_files.with_settings(text, values) == text


def test_settings_may_stand_behind_another_sign_than_white_space(text_files):
    wish = ({"IPT_SYSCTL": "/etc/sysctl.d/ours"}, "=")
    text = text_files.with_settings("# IPT_SYSCTL=\nIPV6=yes\nIPT_SYSCTL=/etc/ufw\n", *wish)
    assert text == "# IPT_SYSCTL=\nIPV6=yes\nIPT_SYSCTL=/etc/sysctl.d/ours\n"
    assert text_files.with_settings(text, *wish) == text


def test_a_path_is_found_under_the_name_that_its_package_gives_it(
    file_modes, tmp_path, monkeypatch
):
    monkeypatch.setattr(file_modes, "PACKAGES", tmp_path)
    (tmp_path / "mount.list").write_text("/.\n/bin\n/bin/mount\n")
    (tmp_path / "passwd.list").write_text("/usr/bin/chfn\n")
    assert file_modes.name_in_dpkg("/usr/bin/mount") == "/bin/mount"
    assert file_modes.name_in_dpkg("/usr/bin/chfn") == "/usr/bin/chfn"
    assert file_modes.name_in_dpkg("/home/ops") == ""


def test_what_dpkg_was_told_is_read(file_modes, tmp_path, monkeypatch):
    monkeypatch.setattr(file_modes, "OVERRIDES", tmp_path / "statoverride")
    assert file_modes.overrides() == {}
    (tmp_path / "statoverride").write_text("root crontab 2755 /usr/bin/crontab\n")
    assert file_modes.overrides() == {"/usr/bin/crontab": ("root", "crontab", "2755")}


@pytest.mark.parametrize(("mode", "wanted"), [(0o4755, "0755"), (0o2755, "0755"), (0o755, "0755")])
def test_only_the_two_bits_are_taken_away(file_modes, tmp_path, mode, wanted):
    program = tmp_path / "program"
    program.touch()
    program.chmod(mode)
    lists = {"modes": {}, "without_set_id": [str(program)], "only_for_group": [], "group": "root"}
    assert file_modes.wanted_states(lists)[str(program)][2] == wanted


def test_compilers_are_found_behind_their_links(file_modes, tmp_path):
    (tmp_path / "x86_64-linux-gnu-gcc-12").touch()
    (tmp_path / "gcc").symlink_to("x86_64-linux-gnu-gcc-12")
    (tmp_path / "cc").symlink_to("gcc")
    (tmp_path / "clang").symlink_to("nowhere")
    patterns = [f"{tmp_path}/{name}" for name in ("cc", "gcc", "*-linux-gnu-gcc-[0-9]*", "clang")]
    lists = {"modes": {}, "without_set_id": [], "only_for_group": patterns, "group": "makers"}
    found = file_modes.wanted_states(lists)
    assert found == {str(tmp_path / "x86_64-linux-gnu-gcc-12"): ("root", "makers", "0750")}


def test_mounts_that_lack_an_option_are_named_with_all_they_shall_have(
    host_state, tmp_path, monkeypatch
):
    (tmp_path / "mounts").write_text(
        "tmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0\n/dev/vda2 /tmp ext4 rw,nosuid,nodev 0 0\n"
    )
    monkeypatch.setattr(host_state, "MOUNTS", tmp_path / "mounts")
    wishes = {
        "/dev/shm": ["nosuid", "nodev", "noexec"],
        "/tmp": ["nosuid", "nodev"],
        "/var/tmp": ["nosuid"],  # no mount of its own
    }
    assert host_state.lacking_mounts(wishes) == [
        {"path": "/dev/shm", "src": "tmpfs", "fstype": "tmpfs", "opts": "rw,nosuid,nodev,noexec"}
    ]


def test_small_groups_of_sshd_are_seen(host_state, tmp_path, monkeypatch):
    moduli = tmp_path / "moduli"
    monkeypatch.setattr(host_state, "MODULI", moduli)
    assert not host_state.weak_moduli()
    moduli.write_text("# Time Type Tests Tries Size Generator Modulus\n2023 2 6 100 3071 2 F00\n")
    assert not host_state.weak_moduli()
    moduli.write_text(f"{moduli.read_text()}2023 2 6 100 2047 5 F00\n")
    assert host_state.weak_moduli()
