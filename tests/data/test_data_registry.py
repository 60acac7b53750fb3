import pytest
from fake_files import write_fashion_mnist

from synthgrad.data import available, check, get, load
from synthgrad.data import dataset as dataset_module
from synthgrad.data.mnist import archive_path
from synthgrad.errors import ConfigError, DataError, DataNotFoundError


def test_available_tells_where_files_were_found(tmp_path, monkeypatch):
    folder = archive_path().parent
    assert available() == {"mnist": folder, "fashion-mnist": None, "cifar10": None}
    write_fashion_mnist(tmp_path, monkeypatch)
    assert available(tmp_path)["fashion-mnist"] == tmp_path


@pytest.mark.parametrize("function", [load, get, check])
def test_unknown_name_is_refused_with_the_known_ones(function):
    with pytest.raises(
        ConfigError, match="'imagenet'; the names are mnist, fashion-mnist, cifar10"
    ):
        function("imagenet")


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
@pytest.mark.parametrize("function", [load, check])
def test_missing_data_can_be_caught_as_a_data_error(tmp_path, name, function):
    with pytest.raises(DataNotFoundError) as error:
        function(name, tmp_path)
    assert isinstance(error.value, DataError)
    assert isinstance(error.value, FileNotFoundError)


def test_get_of_mnist_needs_no_network(tmp_path):
    assert get("mnist", tmp_path) == [archive_path()]


def test_check_reports_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "NUM_VALIDATION", 2)
    write_fashion_mnist(tmp_path, monkeypatch)
    report = check("fashion-mnist", tmp_path)
    assert (report.name, report.title, report.official) == ("fashion-mnist", "Fashion-MNIST", True)
    assert (report.num_train, report.num_validation, report.num_test) == (4, 2, 3)
    assert (report.num_classes, report.input_shape) == (10, (1, 4, 5))
    assert [path.parent for path in report.files] == [tmp_path] * 4
