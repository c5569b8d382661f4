"Settings every test shares; they must stand before torch is imported."
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')     # parallel workers otherwise fight over the cores
os.environ.setdefault('HF_HUB_OFFLINE', '1')      # no test may depend on the network
