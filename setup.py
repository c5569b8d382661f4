"Packaging shim. Every value lives in settings.ini, the file nbdev itself reads; edit there, not here."
from configparser import ConfigParser
from setuptools import find_packages, setup

config = ConfigParser(delimiters=['='])
config.read('settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
extras = {name: cfg[f'{name}_requirements'].split() for name in ('report', 'shards', 'adapt', 'app')}

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=open('README.md', encoding='utf-8').read(),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0 AND CC-BY-NC-SA-4.0',  # the code, and the weights of checkpoints/mini
    keywords=cfg['keywords'],
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']) + ['tamers.checkpoints', 'tamers.analysis'],
    package_dir={'tamers.checkpoints': 'checkpoints', 'tamers.analysis': 'nbs/analysis'},  # one copy in git, mapped into the wheel
    package_data={'tamers.checkpoints': ['mini/*', 'mini/*/*'], 'tamers.analysis': ['*.ipynb']},
    python_requires='>=' + cfg['min_python'],
    install_requires=cfg['requirements'].split(),
    extras_require=extras | {'dev': sum(extras.values(), cfg['dev_requirements'].split())},
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
)
